data "holdfast_node" "first" {
  name = "node-1"
}

output "allocated" {
  value = data.holdfast_node.first.status.allocated
}
