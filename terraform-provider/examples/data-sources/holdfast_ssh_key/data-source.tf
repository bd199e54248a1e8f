data "holdfast_ssh_key" "alice" {
  name = "alice"
}

output "fingerprint" {
  value = data.holdfast_ssh_key.alice.fingerprint
}
