resource "holdfast_image" "debian" {
  name   = "debian-13"
  digest = "sha256:0f2a5d0c1c9f3b4e7d6a8b90c1d2e3f405162738495a6b7c8d9eafb0c1d2e3f4"
  format = "qcow2"
  source = {
    http = { url = "https://images.example.org/debian-13.qcow2" }
  }
}

# From a folder of the nodes, fetched by all of them before anything needs it.
resource "holdfast_image" "gateway" {
  name   = "gateway"
  digest = "sha256:1f2a5d0c1c9f3b4e7d6a8b90c1d2e3f405162738495a6b7c8d9eafb0c1d2e3f4"
  format = "raw"
  source = {
    file = { path = "/srv/images/gateway.raw" }
  }
  prefetch = { node_selector = {} }
}
