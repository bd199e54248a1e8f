variable "image" {
  description = "A cloud image with cloud-init, qcow2, and the SHA-256 digest of its file. Without it, the demo's."
  type = object({
    url    = string
    digest = string
  })
  default = null
}

variable "public_key_file" {
  description = "The public SSH key that the guest's default user gets, such as ~/.ssh/id_ed25519.pub. Without it, the demo's."
  type        = string
  default     = null
}
