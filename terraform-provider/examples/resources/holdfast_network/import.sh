terraform import holdfast_network.lan default/lan
