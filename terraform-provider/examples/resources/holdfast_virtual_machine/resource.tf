resource "holdfast_virtual_machine" "web" {
  name   = "web"
  cpu    = 2
  memory = "2Gi"

  disks = [
    { name = "root", size = "10Gi", image = "debian-13" },
    { name = "data", size = "20Gi", blank = true },
  ]

  interfaces = [
    { name = "lan", network = "lan", wait_for_address = true },
  ]

  cloud_init = {
    ssh_keys  = ["alice"]
    user_data = <<-EOT
      #cloud-config
      packages: [nginx]
    EOT
  }

  # Restart the guest and let cloud-init run again when user_data changes.
  on_user_data_change = "reboot"
}

output "address" {
  value = holdfast_virtual_machine.web.address
}
