//! What a host shows of one virtual machine, whoever it thinks made it.

use anyhow::Result;

use super::Member;

impl Member {
    /// Process ids inside the host of everything whose command line names the virtual machine, one a line.
    pub fn processes_of(&mut self, uid: &str) -> Result<String> {
        let found = self.host().output(&["pgrep", "--full", uid])?;
        Ok(String::from_utf8_lossy(&found.stdout).trim().to_owned())
    }

    /// How many domains have this UUID.
    pub fn domains_of(&mut self, uid: &str) -> Result<usize> {
        let all = self.host().virsh(&["list", "--all", "--uuid"])?;
        Ok(all.lines().filter(|line| line.trim() == uid).count())
    }

    /// Processes, domains, folders, sockets and other files of the virtual machine; empty when it is gone.
    pub fn remains_of(&mut self, uid: &str) -> Result<String> {
        let mut remains = self.processes_of(uid)?;
        if self.domains_of(uid)? > 0 {
            remains.push_str("\na domain");
        }
        // libvirt cuts the names of its own folders and sockets; the first group is as good as the whole.
        let name = format!("*{}*", uid.split('-').next().unwrap_or(uid));
        remains.push_str(&self.host().run(&["find", "/run", "/var/lib", "-name", &name])?);
        Ok(remains)
    }
}
