//! The few C functions that `virt` 0.5 does not wrap, or wraps with a leak. The only file with `unsafe` in the
//! daemon but `memory.rs`.
//!
//! - the event loop and the lifecycle and close callbacks (not wrapped);
//! - interface addresses (`virt` drops the C structs without `virDomainInterfaceFree`, a leak of every poll);
//! - defining a network with validation (not wrapped).
//!
//! libvirt's error is per thread, so each wrapper reads it on the thread that made the call.
#![expect(unsafe_code, reason = "C callbacks and C memory; every block says why it is sound")]

use std::ffi::{CStr, CString, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::time::Duration;
use std::{mem, ptr, thread};

use nix::libc;
use uuid::Uuid;
use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::Error as VirtError;
use virt::event::{event_register_default_impl, event_run_default_impl};
use virt::sys;

use super::events::Lifecycle;

/// What the callbacks of one connection tell. Called on the event loop's thread; must not block or call libvirt.
pub(super) trait Listener: Send + Sync + 'static {
    fn lifecycle(&self, uuid: Uuid, change: Lifecycle);
    fn closed(&self);
}

/// Registers libvirt's event loop and starts its thread, once per process and before the first connection.
pub(super) fn start_event_loop() -> Result<(), VirtError> {
    // libvirt keeps one loop per process, so this state cannot belong to a value of ours.
    static LOOP: OnceLock<Result<(), VirtError>> = OnceLock::new();
    LOOP.get_or_init(|| {
        virt::error::clear_error_callback();
        event_register_default_impl()?;
        let started = thread::Builder::new().name("libvirt-events".into()).spawn(run_event_loop);
        started.map(drop).map_err(|_| VirtError::last_error())
    })
    .clone()
}

fn run_event_loop() {
    // A failing loop must not spin a core; 100 ms still delivers events in time for any condition.
    const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(100);
    loop {
        if let Err(error) = event_run_default_impl() {
            tracing::warn!(%error, "libvirt's event loop stumbled");
            thread::sleep(PAUSE_AFTER_ERROR);
        }
    }
}

type Shared = Box<dyn Listener>;

/// A connection with our callbacks on it; dropping it takes them off again, without which libvirt would keep the
/// connection, its socket and the listener for ever.
pub(super) struct Watched {
    connect: Connect,
    lifecycle: c_int,
    close: bool,
}

impl Watched {
    /// Registers both callbacks. libvirt's test driver runs in our process and never closes: it accepts a close callback
    /// without keeping it, so its listener would never be freed.
    pub(super) fn new<L: Listener + Clone>(connect: Connect, listener: &L) -> Result<Self, VirtError> {
        let in_process = connect.driver_type()?.eq_ignore_ascii_case("test");
        let lifecycle = register_lifecycle(&connect, Box::new(listener.clone()))?;
        let close = !in_process && register_close(&connect, Box::new(listener.clone()));
        Ok(Self { connect, lifecycle, close })
    }

    pub(super) fn connect(&self) -> &Connect {
        &self.connect
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // SAFETY: the connection is alive until `self.connect` drops after this body; the id and the function were
        // registered on it. On a broken connection libvirtd cannot be told, so the calls may fail; libvirt then frees the
        // listeners with the connection, and the results say nothing we could act on.
        unsafe {
            let raw = self.connect.as_ptr();
            sys::virConnectDomainEventDeregisterAny(raw, self.lifecycle);
            if self.close {
                sys::virConnectUnregisterCloseCallback(raw, Some(on_close));
            }
        }
    }
}

fn register_lifecycle(connect: &Connect, listener: Shared) -> Result<c_int, VirtError> {
    type Callback =
        unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, c_int, *mut c_void) -> c_int;
    type Generic = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void);
    let opaque = into_opaque(listener);
    // SAFETY: libvirt documents this cast (`VIR_DOMAIN_EVENT_CALLBACK`): for the lifecycle id it calls the function with
    // the five arguments above. `opaque` stays valid until libvirt calls `free_listener`.
    let id = unsafe {
        let callback = mem::transmute::<Callback, Generic>(on_lifecycle);
        sys::virConnectDomainEventRegisterAny(
            connect.as_ptr(),
            ptr::null_mut(),
            sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE.cast_signed(),
            Some(callback),
            opaque,
            Some(free_listener),
        )
    };
    if id < 0 {
        let error = VirtError::last_error();
        // SAFETY: a failed registration does not take `opaque` over, and nobody else holds it.
        unsafe { free_listener(opaque) };
        return Err(error);
    }
    Ok(id)
}

fn register_close(connect: &Connect, listener: Shared) -> bool {
    let opaque = into_opaque(listener);
    // SAFETY: as for the lifecycle callback; the signature is the declared one.
    let result = unsafe {
        sys::virConnectRegisterCloseCallback(connect.as_ptr(), Some(on_close), opaque, Some(free_listener))
    };
    if result < 0 {
        // SAFETY: a failed registration does not take `opaque` over.
        unsafe { free_listener(opaque) };
    }
    result >= 0
}

/// A thin pointer to the fat one, as C carries a single word.
fn into_opaque(listener: Shared) -> *mut c_void {
    Box::into_raw(Box::new(listener)).cast()
}

/// # Safety
/// `opaque` comes from [`into_opaque`] and is not used afterwards.
unsafe extern "C" fn free_listener(opaque: *mut c_void) {
    // SAFETY: the caller's promise.
    let listener = unsafe { Box::from_raw(opaque.cast::<Shared>()) };
    // A panicking destructor must not unwind into C.
    drop(catch_unwind(AssertUnwindSafe(|| drop(listener))));
}

/// # Safety
/// Called by libvirt with a live domain and the `opaque` given at registration.
unsafe extern "C" fn on_lifecycle(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    event: c_int,
    _detail: c_int,
    opaque: *mut c_void,
) -> c_int {
    let told = catch_unwind(AssertUnwindSafe(|| {
        let mut uuid = [0_u8; sys::VIR_UUID_BUFLEN as usize];
        // SAFETY: libvirt keeps `domain` alive during the callback and writes exactly VIR_UUID_BUFLEN bytes.
        if unsafe { sys::virDomainGetUUID(domain, uuid.as_mut_ptr()) } == 0 {
            // SAFETY: `opaque` is the listener, shared and not freed while its callback runs.
            let listener = unsafe { &*opaque.cast::<Shared>() };
            listener.lifecycle(Uuid::from_bytes(uuid), Lifecycle::from_raw(event));
        }
    }));
    drop(told);
    0
}

/// # Safety
/// Called by libvirt with the `opaque` given at registration.
unsafe extern "C" fn on_close(_: sys::virConnectPtr, _reason: c_int, opaque: *mut c_void) {
    // SAFETY: `opaque` is the listener, shared and not freed while its callback runs.
    let told = catch_unwind(AssertUnwindSafe(|| unsafe { &*opaque.cast::<Shared>() }.closed()));
    drop(told);
}

/// One address of a guest as libvirt found it: MAC (where known) and address, both as text.
pub(super) type RawAddress = (Option<String>, String);

/// `virDomainInterfaceAddresses` for one source, with everything freed.
pub(super) fn interface_addresses(
    domain: &Domain,
    source: sys::virDomainInterfaceAddressesSource,
) -> Result<Vec<RawAddress>, VirtError> {
    let mut list: *mut sys::virDomainInterfacePtr = ptr::null_mut();
    // SAFETY: the domain is alive and `list` is a valid place for the result.
    let count = unsafe { sys::virDomainInterfaceAddresses(domain.as_ptr(), &raw mut list, source, 0) };
    let count = usize::try_from(count).map_err(|_| VirtError::last_error())?;
    let mut found = Vec::new();
    for index in 0..count {
        // SAFETY: libvirt returned `count` valid interfaces; each is copied, then freed once.
        unsafe {
            let interface = *list.add(index);
            copy_addresses(interface, &mut found);
            sys::virDomainInterfaceFree(interface);
        }
    }
    // SAFETY: the array itself is ours to free, by `free` (virDomainInterfaceAddresses).
    unsafe { libc::free(list.cast()) };
    Ok(found)
}

/// # Safety
/// `interface` points to a valid interface of libvirt.
unsafe fn copy_addresses(interface: sys::virDomainInterfacePtr, found: &mut Vec<RawAddress>) {
    // SAFETY: the caller's promise; strings are NUL-terminated or null, `addrs` holds `naddrs` entries.
    unsafe {
        let mac = text((*interface).hwaddr);
        for index in 0..(*interface).naddrs as usize {
            let address = text((*(*interface).addrs.add(index)).addr);
            found.extend(address.map(|address| (mac.clone(), address)));
        }
    }
}

/// # Safety
/// `chars` is null or a NUL-terminated string.
unsafe fn text(chars: *const std::ffi::c_char) -> Option<String> {
    // SAFETY: the caller's promise.
    (!chars.is_null()).then(|| unsafe { CStr::from_ptr(chars) }.to_string_lossy().into_owned())
}

/// `virNetworkDefineXMLFlags` with validation against libvirt's schema (since 7.8.0).
pub(super) fn define_network(connect: &Connect, xml: &str) -> Result<(), VirtError> {
    let xml = CString::new(xml)?;
    // SAFETY: the connection is alive and the string is NUL-terminated; the handle we get back is freed at once.
    unsafe {
        let network =
            sys::virNetworkDefineXMLFlags(connect.as_ptr(), xml.as_ptr(), sys::VIR_NETWORK_DEFINE_VALIDATE);
        if network.is_null() {
            return Err(VirtError::last_error());
        }
        sys::virNetworkFree(network);
    }
    Ok(())
}
