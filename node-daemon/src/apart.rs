//! Work that may wait for a disk that hangs: it must not hold the threads of those that report.

use std::pin::pin;

use tokio::task::block_in_place;

/// Does each step of `work` on a thread that the other tasks can do without.
pub(crate) async fn apart<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    std::future::poll_fn(|context| block_in_place(|| work.as_mut().poll(context))).await
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use nix::sys::stat::Mode;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn whoever_waits_for_a_disk_that_hangs_holds_up_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let hangs = folder.path().join("hangs");
        // Who opens it to read waits for somebody who writes.
        nix::unistd::mkfifo(&hangs, Mode::S_IRWXU).unwrap();
        let read = |hangs| apart(async move { fs::File::open(hangs).is_ok() });
        let waiting: Vec<_> = (0..4).map(|_| tokio::spawn(read(hangs.clone()))).collect();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let (sender, told) = std::sync::mpsc::channel();
        tokio::spawn(async move { sender.send(()) });
        let reported = told.recv_timeout(Duration::from_secs(5));
        let _writer = fs::OpenOptions::new().read(true).write(true).open(&hangs).unwrap();
        assert!(reported.is_ok(), "nobody reports");
        for reader in waiting {
            assert!(reader.await.unwrap());
        }
    }
}
