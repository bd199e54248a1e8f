resource "holdfast_ssh_key" "alice" {
  name       = "alice"
  public_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0VQmXWqCwdWxYF3ygdMzyLUOxJ7HpPlHqYUzrDvC4n alice"
}
