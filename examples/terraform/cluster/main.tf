# Three machines that find each other. The first serves what the others run, so nothing is fetched from outside the site.

terraform {
  required_providers {
    holdfast = {
      source = "mirror.example.org/holdfast/holdfast"
    }
  }
}

provider "holdfast" {}

# A network of this kind is one node's own, so all three are on that node. With a bridge they may be anywhere.
resource "holdfast_network" "ring" {
  name   = "ring"
  nat    = var.bridge == null ? {} : null
  bridge = var.bridge == null ? null : { name = var.bridge }
}

# What cannot be fetched here: a file system with a join.sh, from a folder of the node. See README.md.
resource "holdfast_image" "payload" {
  count  = var.payload == null ? 0 : 1
  name   = "ring-payload"
  digest = var.payload.digest
  format = "raw"
  source = {
    file = { path = var.payload.path }
  }
}

locals {
  placement = var.bridge == null ? { node_name = var.node } : null
  script    = filebase64("${path.module}/roll.py")
}

resource "holdfast_virtual_machine" "leader" {
  name   = "ring-1"
  cpu    = 1
  memory = var.memory

  disks = concat(
    [{ name = "root", size = "4Gi", image = var.image }],
    var.payload == null ? [] : [
      { name = "payload", size = var.payload.size, image = holdfast_image.payload[0].name },
    ],
  )

  # The others are told its address, so it is waited for.
  interfaces = [
    { name = "ring", network = holdfast_network.ring.name, wait_for_address = true },
  ]

  cloud_init = {
    ssh_keys = var.ssh_keys
    user_data = templatefile("${path.module}/user-data.yaml.tftpl", {
      leader = ""
      script = local.script
    })
  }

  placement = local.placement
}

resource "holdfast_virtual_machine" "member" {
  for_each = toset(["ring-2", "ring-3"])

  name   = each.key
  cpu    = 1
  memory = var.memory

  disks = [
    { name = "root", size = "4Gi", image = var.image },
  ]

  interfaces = [
    { name = "ring", network = holdfast_network.ring.name, wait_for_address = true },
  ]

  cloud_init = {
    ssh_keys = var.ssh_keys
    user_data = templatefile("${path.module}/user-data.yaml.tftpl", {
      leader = holdfast_virtual_machine.leader.address
      script = "" # the leader serves it
    })
  }

  placement = local.placement
}

output "leader" {
  description = "Where the roll is called, as seen from the ring's network."
  value       = "http://${holdfast_virtual_machine.leader.address}:8080/roll"
}

output "addresses" {
  description = "The address of each machine."
  value = merge(
    { (holdfast_virtual_machine.leader.name) = holdfast_virtual_machine.leader.address },
    { for name, member in holdfast_virtual_machine.member : name => member.address },
  )
}
