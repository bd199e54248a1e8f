terraform import holdfast_ssh_key.alice default/alice
