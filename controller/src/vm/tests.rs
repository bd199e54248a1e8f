//! Histories of one virtual machine, write by write.
