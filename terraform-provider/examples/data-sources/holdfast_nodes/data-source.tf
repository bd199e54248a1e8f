data "holdfast_nodes" "all" {}

output "processors" {
  value = { for node in data.holdfast_nodes.all.nodes : node.name => node.status.capacity.cpu }
}
