variable "image" {
  description = "Name of a holdfast_image in the same namespace. The demo has tiny, which boots in seconds."
  type        = string
  default     = "tiny"
}

variable "machines" {
  description = "The machines by their names. What is left out has the value that stands here."
  type = map(object({
    cpu     = optional(number, 1)
    memory  = optional(string, "256Mi") # what the firmware and tiny need together
    data    = optional(string)
    node    = optional(string)
    running = optional(bool, true)
    labels  = optional(map(string), {})
  }))
  default = {
    till-1 = {}
    till-2 = { data = "1Gi", labels = { floor = "2" } }
    spare  = { running = false }
  }
}
