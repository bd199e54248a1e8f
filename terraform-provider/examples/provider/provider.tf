terraform {
  required_providers {
    holdfast = {
      source  = "mirror.example.org/holdfast/holdfast"
      version = "~> 0.1"
    }
  }
}

# The environment says where the site is: KUBE_CONFIG_PATH or KUBECONFIG.
provider "holdfast" {
  namespace = "default"
}

# A site with a file of its own, in the context that is named there.
provider "holdfast" {
  alias          = "harbour"
  config_path    = "~/.kube/harbour"
  config_context = "admin"
}
