data "holdfast_network" "plant" {
  name = "plant"
}

output "vlan" {
  value = data.holdfast_network.plant.bridge.vlan
}
