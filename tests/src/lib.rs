//! The harness: real peers, started and ended by this process, behind the stories in `tests/tests/` and the demo.
//!
//! ```text
//! Site ─┬─ ControlPlane   kine, kube-apiserver, kube-controller-manager (or a cluster the user names)
//!       ├─ Controller     holdfast-controller, under its own ServiceAccount
//!       └─ Host × N       namespaces of its own: virtlogd, libvirtd, QEMU, holdfast-node
//!            └─ Link      the host's only way out: a relay to a loopback port of this machine
//! ```
//!
//! Nothing here is imitated: programs are started as processes and spoken to as a user would. Whatever is started
//! ends with this process, even when it is killed: children carry a parent-death signal, and every host is one PID
//! namespace, so the end of its first process is the end of all of them.

pub mod acting_node;
pub mod bench;
pub mod control_plane;
pub mod demo;
pub mod desk;
pub mod files;
pub mod guest;
pub mod guest_image;
pub mod host;
pub mod image_server;
pub mod install;
pub mod kubeconfig;
pub mod kubectl;
pub mod kvm;
pub mod link;
pub mod machine;
pub mod office;
pub mod peer;
pub mod pki;
pub mod ports;
pub mod process;
pub mod progress;
pub mod proxy;
pub mod runtime;
pub mod scene;
pub mod site;
pub mod site_folder;
pub mod spawner;
pub mod story;
pub mod terraform;
pub mod tls_front;
pub mod wait;
