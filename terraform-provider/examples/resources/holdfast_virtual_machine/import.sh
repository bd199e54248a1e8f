terraform import holdfast_virtual_machine.web default/web
