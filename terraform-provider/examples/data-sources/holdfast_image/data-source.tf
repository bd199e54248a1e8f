data "holdfast_image" "debian" {
  name      = "debian-13"
  namespace = "images"
}

output "digest" {
  value = data.holdfast_image.debian.digest
}
