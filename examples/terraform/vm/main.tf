# A network, a key, an image and a virtual machine on them.

terraform {
  required_providers {
    holdfast = {
      source = "mirror.example.org/holdfast/holdfast"
    }
  }
}

# KUBE_CONFIG_PATH or KUBECONFIG says which site.
provider "holdfast" {}

# What `make demo` offers in the namespace `default`; read only where the variables say nothing.
data "holdfast_image" "demo" {
  count = var.image == null ? 1 : 0
  name  = "debian-13"
}

data "holdfast_ssh_key" "demo" {
  count = var.public_key_file == null ? 1 : 0
  name  = "demo"
}

locals {
  image = var.image != null ? var.image : {
    url    = data.holdfast_image.demo[0].source.http.url
    digest = data.holdfast_image.demo[0].digest
  }
  public_key = (
    var.public_key_file != null
    ? trimspace(file(pathexpand(var.public_key_file)))
    : data.holdfast_ssh_key.demo[0].public_key
  )
}

resource "holdfast_network" "lan" {
  name = "hello"
  nat  = {}
}

resource "holdfast_ssh_key" "me" {
  name       = "hello"
  public_key = local.public_key
}

resource "holdfast_image" "debian" {
  name   = "hello"
  digest = local.image.digest
  format = "qcow2"
  source = {
    http = { url = local.image.url }
  }
}

resource "holdfast_virtual_machine" "hello" {
  name   = "hello"
  cpu    = 1
  memory = "1Gi"

  disks = [
    { name = "root", size = "4Gi", image = holdfast_image.debian.name },
  ]

  interfaces = [
    { name = "lan", network = holdfast_network.lan.name, wait_for_address = true },
  ]

  cloud_init = {
    ssh_keys  = [holdfast_ssh_key.me.name]
    user_data = <<-EOT
      #cloud-config
      write_files:
      - path: /etc/motd
        content: "This is hello, made by terraform apply.\n"
    EOT
  }
}

output "address" {
  description = "Where the guest answers, as seen from its node."
  value       = holdfast_virtual_machine.hello.address
}

output "node" {
  description = "The node it runs on."
  value       = holdfast_virtual_machine.hello.node_name
}
