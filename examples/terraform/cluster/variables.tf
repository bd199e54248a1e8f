variable "image" {
  description = "Name of a holdfast_image with cloud-init and Python 3, in the same namespace. The demo has debian-13."
  type        = string
  default     = "debian-13"
}

variable "ssh_keys" {
  description = "Names of the holdfast_ssh_key objects that all three take. The demo has one."
  type        = list(string)
  default     = ["demo"]
}

variable "memory" {
  description = "Memory of each machine."
  type        = string
  default     = "1Gi"
}

variable "node" {
  description = "The node that runs all three, unless they are on a bridge."
  type        = string
  default     = "node-1"
}

variable "bridge" {
  description = "A bridge that every node has, for machines on several nodes."
  type        = string
  default     = null
}

variable "payload" {
  description = "A raw image with a file system, in a folder that the node's imageSources.fileRoots allows; its size in whole Mi."
  type = object({
    path   = string
    digest = string
    size   = string
  })
  default = null
}
