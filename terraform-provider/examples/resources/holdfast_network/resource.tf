# A private subnet on each node, out through the node's address.
resource "holdfast_network" "lan" {
  name = "lan"
  nat  = { subnet = "10.88.77.0/24" }
}

# VLAN 120 of a bridge that the nodes have already and offer (bridges in node.yaml).
resource "holdfast_network" "plant" {
  name   = "plant"
  bridge = { name = "br0", vlan = 120 }
}
