data "holdfast_virtual_machine" "web" {
  name = "web"
}

output "address" {
  value = data.holdfast_virtual_machine.web.address
}
