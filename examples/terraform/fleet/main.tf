# Many machines from one table: add a line and apply, and one machine more is there.

terraform {
  required_providers {
    holdfast = {
      source = "mirror.example.org/holdfast/holdfast"
    }
  }
}

provider "holdfast" {}

data "holdfast_nodes" "all" {}

resource "holdfast_network" "fleet" {
  name = "fleet"
  nat  = {}
}

resource "holdfast_virtual_machine" "fleet" {
  for_each = var.machines

  name         = each.key
  labels       = merge({ fleet = "tills" }, each.value.labels)
  cpu          = each.value.cpu
  memory       = each.value.memory
  run_strategy = each.value.running ? "Always" : "Halted"

  disks = concat(
    [{ name = "root", size = "64Mi", image = var.image }],
    each.value.data == null ? [] : [{ name = "data", size = each.value.data, blank = true }],
  )

  interfaces = [
    { name = "lan", network = holdfast_network.fleet.name, wait_for_address = true },
  ]

  placement = each.value.node == null ? null : { node_name = each.value.node }
}

output "addresses" {
  description = "The address of each machine; none of one that is halted."
  value       = { for name, machine in holdfast_virtual_machine.fleet : name => machine.address }
}

output "nodes" {
  description = "The nodes that take machines, as `node` of a machine may name them."
  value       = [for node in data.holdfast_nodes.all.nodes : node.name if !try(node.unschedulable, false)]
}
