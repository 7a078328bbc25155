//! Counters of accesses to guest memory, by purpose.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// Maximum number of purposes of a device.
pub const MAX_PURPOSES: usize = 16;

/// Purpose of an access to guest memory: WQE, completion, payload. Each purpose has counters of its own.
///
/// [`purposes!`](crate::purposes) declares an enum that implements it.
pub trait Purpose: Copy + Send + Sync + 'static {
    /// Names in statistics, at most [`MAX_PURPOSES`].
    const NAMES: &'static [&'static str];

    /// Position in [`NAMES`](Self::NAMES).
    fn index(self) -> usize;
}

/// Declares the [`Purpose`](crate::dma::Purpose)s of a device: an enum with a name in statistics for each variant.
///
/// ```
/// pci_function::purposes! {
///     /// Purpose of an access to guest memory.
///     pub enum Purpose {
///         /// A descriptor.
///         Descriptor = "descriptor",
///         /// Payload.
///         Payload = "payload",
///     }
/// }
/// ```
#[macro_export]
macro_rules! purposes {
    ($(#[$meta:meta])* $visibility:vis enum $purpose:ident { $($(#[$doc:meta])* $name:ident = $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        $visibility enum $purpose {
            $($(#[$doc])* $name,)*
        }

        impl $crate::dma::Purpose for $purpose {
            const NAMES: &'static [&'static str] = &[$($text,)*];

            #[inline]
            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

/// Counters of one purpose.
#[derive(Debug, Default)]
pub(super) struct Counter {
    accesses: AtomicU64,
    bytes: AtomicU64,
    failures: AtomicU64,
}

impl Counter {
    #[inline]
    pub(super) fn count(&self, length: usize, succeeded: bool) {
        if succeeded {
            self.accesses.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(length as u64, Ordering::Relaxed);
        } else {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Counters of every purpose. An array, not a slice of the right length: no pointer to follow and no bound to check.
#[derive(Debug)]
pub(super) struct Counters<P>([Counter; MAX_PURPOSES], PhantomData<P>);

impl<P: Purpose> Counters<P> {
    const FITS: () = assert!(P::NAMES.len() <= MAX_PURPOSES, "too many purposes");

    #[inline]
    pub(super) fn of(&self, purpose: P) -> &Counter {
        &self.0[purpose.index()]
    }

    pub(super) fn snapshot_of(&self, index: usize) -> PurposeStats {
        let counter = &self.0[index];
        PurposeStats {
            purpose: P::NAMES[index],
            accesses: counter.accesses.load(Ordering::Relaxed),
            bytes: counter.bytes.load(Ordering::Relaxed),
            failures: counter.failures.load(Ordering::Relaxed),
        }
    }

    pub(super) fn snapshot(&self) -> Vec<PurposeStats> {
        (0..P::NAMES.len()).map(|index| self.snapshot_of(index)).collect()
    }
}

impl<P: Purpose> Default for Counters<P> {
    fn default() -> Self {
        const { Self::FITS };
        Self(Default::default(), PhantomData)
    }
}

/// Snapshot of the counters of one purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PurposeStats {
    /// Name of the purpose.
    pub purpose: &'static str,
    /// Successful accesses.
    pub accesses: u64,
    /// Bytes moved.
    pub bytes: u64,
    /// Accesses to memory that is not mapped, or not for this kind of access.
    pub failures: u64,
}

/// Accesses for one purpose, added to its counters when this is dropped.
#[derive(Debug)]
pub(super) struct Tally<'a> {
    counter: &'a Counter,
    accesses: u64,
    bytes: u64,
    failures: u64,
}

impl<'a> Tally<'a> {
    #[inline]
    pub(super) fn new(counter: &'a Counter) -> Self {
        Self {
            counter,
            accesses: 0,
            bytes: 0,
            failures: 0,
        }
    }

    #[inline]
    pub(super) fn count(&mut self, length: usize, succeeded: bool) {
        if succeeded {
            self.accesses += 1;
            self.bytes += length as u64;
        } else {
            self.failures += 1;
        }
    }
}

impl Drop for Tally<'_> {
    #[inline]
    fn drop(&mut self) {
        self.counter.accesses.fetch_add(self.accesses, Ordering::Relaxed);
        self.counter.bytes.fetch_add(self.bytes, Ordering::Relaxed);
        if self.failures > 0 {
            self.counter.failures.fetch_add(self.failures, Ordering::Relaxed);
        }
    }
}
