//! Declaration of bit layouts, and access to their fields.
//!
//! `mlx5_ifc.h` numbers the bits of a structure from the most significant bit of its first byte, and so do the
//! declarations here. All integers are big-endian.

/// A field of a layout, as declared; see [`Layout`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Name in `mlx5_ifc.h`, in lower case; a Rust keyword gets a trailing underscore.
    pub name: &'static str,
    /// Offset in bits.
    pub offset: usize,
    /// Width in bits.
    pub width: usize,
    /// Layout of the field, if it is one.
    pub inner: Option<&'static Declaration>,
}

/// A structure whose fields are declared by the bit.
pub trait Layout: zerocopy::FromBytes + zerocopy::IntoBytes + zerocopy::Immutable + zerocopy::KnownLayout {
    /// Name of its `struct mlx5_ifc_*_bits`.
    const IFC: &'static str;
    /// Size in bytes.
    const SIZE: usize;
    /// Fields.
    const FIELDS: &'static [Field];
}

/// A layout without its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Declaration {
    /// See [`Layout::IFC`].
    pub ifc: &'static str,
    /// See [`Layout::SIZE`].
    pub size: usize,
    /// See [`Layout::FIELDS`].
    pub fields: &'static [Field],
}

impl Declaration {
    /// Returns the declaration of a type.
    pub const fn of<T: Layout>() -> Self {
        Self {
            ifc: T::IFC,
            size: T::SIZE,
            fields: T::FIELDS,
        }
    }
}

/// Reads the `width` bits, at most 64, at bit `offset`.
///
/// # Panics
///
/// If they are not all in `bytes`, whose length is a multiple of 4.
#[inline(always)]
pub fn get(bytes: &[u8], offset: usize, width: usize) -> u64 {
    let (mut value, mut at, end) = (0, offset, offset + width);
    while at < end {
        // The part of this aligned word that belongs to the field.
        let (word, bit) = (at / 32 * 4, at % 32);
        let take = (32 - bit).min(end - at);
        let bits = u32::from_be_bytes([bytes[word], bytes[word + 1], bytes[word + 2], bytes[word + 3]]);
        value = value << take | u64::from(bits) >> (32 - bit - take) & mask(take);
        at += take;
    }
    value
}

/// Writes the `width` bits, at most 64, at bit `offset`; higher bits of `value` are ignored.
///
/// # Panics
///
/// If they are not all in `bytes`, whose length is a multiple of 4.
#[inline(always)]
pub fn set(bytes: &mut [u8], offset: usize, width: usize, value: u64) {
    let (mut at, end) = (offset, offset + width);
    while at < end {
        let (word, bit) = (at / 32 * 4, at % 32);
        let take = (32 - bit).min(end - at);
        let shift = 32 - bit - take;
        let part = (value >> (end - at - take) & mask(take)) as u32;
        let bits = u32::from_be_bytes([bytes[word], bytes[word + 1], bytes[word + 2], bytes[word + 3]]);
        let bits = bits & !((mask(take) as u32) << shift) | part << shift;
        bytes[word..word + 4].copy_from_slice(&bits.to_be_bytes());
        at += take;
    }
}

const fn mask(width: usize) -> u64 {
    (1 << width) - 1
}

/// Formats the fields that are not zero; of a field wider than 64 bits, only the length.
pub(crate) fn debug(name: &str, bytes: &[u8], fields: &[Field], f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
    let mut shown = f.debug_struct(name);
    for field in fields {
        if field.width > 64 {
            shown.field(field.name, &format_args!("[{} bytes]", field.width / 8));
        } else {
            match get(bytes, field.offset, field.width) {
                0 => {}
                value => drop(shown.field(field.name, &format_args!("{value:#x}"))),
            }
        }
    }
    shown.finish_non_exhaustive()
}

/// Declares a structure by its bits: `name: type = offset in bits, width in bits;`, `name: bytes(N) = offset;` for a
/// string of bytes and `name: layout(Name) = offset;` for another layout. A field gets a getter and a setter,
/// `set_name`; the latter two a getter and `name_mut`.
macro_rules! layout {
    (
        $(#[$doc:meta])*
        pub struct $name:ident: $ifc:literal, $size:literal {
            $($field:ident: $kind:ident $(($argument:tt))? = $offset:literal $(, $width:literal)?;)*
        }
    ) => {
        $(#[$doc])*
        #[derive(
            Clone, PartialEq, Eq, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout,
            zerocopy::Unaligned,
        )]
        #[repr(transparent)]
        pub struct $name([u8; $size]);

        impl Default for $name {
            fn default() -> Self {
                Self([0; $size])
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                $crate::layout::debug(stringify!($name), &self.0, <Self as $crate::layout::Layout>::FIELDS, f)
            }
        }

        // A field called `len` is a field.
        #[allow(clippy::len_without_is_empty)]
        impl $name {
            $($crate::layout::accessors!($size, $field, $offset $(, $width)?; $kind $(($argument))?);)*
        }

        impl $crate::layout::Layout for $name {
            const IFC: &'static str = $ifc;
            const SIZE: usize = $size;
            const FIELDS: &'static [$crate::layout::Field] = &[$($crate::layout::Field {
                name: stringify!($field),
                offset: $offset,
                width: $crate::layout::width!($($width)?; $kind $(($argument))?),
                inner: $crate::layout::inner!($kind $(($argument))?),
            },)*];
        }
    };
}

macro_rules! accessors {
    ($size:literal, $name:ident, $offset:literal; bytes ($length:literal)) => {
        pastey::paste! {
            #[doc = concat!("`", stringify!($name), "`: ", $length, " bytes at bit ", $offset, ".")]
            #[inline]
            pub fn $name(&self) -> &[u8; $length] {
                const { assert!($offset % 8 == 0 && $offset / 8 + $length <= $size) };
                self.0[$offset / 8..].first_chunk().expect("checked above")
            }

            #[doc = concat!("`", stringify!($name), "`, mutable.")]
            #[inline]
            pub fn [<$name _mut>](&mut self) -> &mut [u8; $length] {
                self.0[$offset / 8..].first_chunk_mut().expect("checked above")
            }
        }
    };
    ($size:literal, $name:ident, $offset:literal; layout ($inner:ident)) => {
        pastey::paste! {
            #[doc = concat!("`", stringify!($name), "`, at bit ", $offset, ".")]
            #[inline]
            pub fn $name(&self) -> &$inner {
                const { assert!($offset % 8 == 0 && $offset / 8 + size_of::<$inner>() <= $size) };
                zerocopy::FromBytes::ref_from_bytes(&self.0[$offset / 8..][..size_of::<$inner>()])
                    .expect("checked above")
            }

            #[doc = concat!("`", stringify!($name), "`, mutable.")]
            #[inline]
            pub fn [<$name _mut>](&mut self) -> &mut $inner {
                zerocopy::FromBytes::mut_from_bytes(&mut self.0[$offset / 8..][..size_of::<$inner>()])
                    .expect("checked above")
            }
        }
    };
    ($size:literal, $name:ident, $offset:literal, $width:literal; bool) => {
        pastey::paste! {
            #[doc = concat!("`", stringify!($name), "`: bit ", $offset, ".")]
            #[inline]
            pub fn $name(&self) -> bool {
                const { assert!($offset < $size * 8 && $width == 1) };
                $crate::layout::get(&self.0, $offset, 1) != 0
            }

            #[doc = concat!("Sets `", stringify!($name), "`.")]
            #[inline]
            pub fn [<set_ $name>](&mut self, value: bool) {
                $crate::layout::set(&mut self.0, $offset, 1, value.into());
            }
        }
    };
    ($size:literal, $name:ident, $offset:literal, $width:literal; $int:ident) => {
        pastey::paste! {
            #[doc = concat!("`", stringify!($name), "`: ", $width, " bits at bit ", $offset, ".")]
            #[inline]
            pub fn $name(&self) -> $int {
                const { assert!($offset + $width <= $size * 8 && $width <= $int::BITS) };
                $crate::layout::get(&self.0, $offset, $width) as $int
            }

            #[doc = concat!("Sets `", stringify!($name), "`; higher bits are ignored.")]
            #[inline]
            pub fn [<set_ $name>](&mut self, value: $int) {
                $crate::layout::set(&mut self.0, $offset, $width, value.into());
            }
        }
    };
}

macro_rules! width {
    (; bytes($length:literal)) => {
        $length * 8
    };
    (; layout ($inner:ident)) => {
        size_of::<$inner>() * 8
    };
    ($width:literal; $int:ident) => {
        $width
    };
}

macro_rules! inner {
    (layout ($inner:ident)) => {
        Some(&const { $crate::layout::Declaration::of::<$inner>() })
    };
    ($kind:ident $(($argument:tt))?) => {
        None
    };
}

/// Lists the layouts of a module, to be compared with `mlx5_ifc.h`.
macro_rules! layouts {
    ($($name:ident),* $(,)?) => {
        /// All layouts of this module.
        pub const LAYOUTS: &[$crate::layout::Declaration] = &[$($crate::layout::Declaration::of::<$name>()),*];
    };
}

pub(crate) use {accessors, inner, layout, layouts, width};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_count_from_the_most_significant() {
        let bytes = [0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0];
        assert_eq!(get(&bytes, 0, 4), 1);
        assert_eq!(get(&bytes, 8, 24), 0x34_5678);
        assert_eq!(get(&bytes, 0, 64), 0x1234_5678_9abc_def0);
        assert_eq!(get(&bytes, 24, 16), 0x789a, "across two words");
    }

    #[test]
    fn what_is_set_is_read_and_nothing_else_changes() {
        for (offset, width) in [(0, 1), (31, 1), (5, 24), (24, 16), (0, 32), (32, 32), (0, 64), (3, 60)] {
            let mut bytes = [0xff; 8];
            set(&mut bytes, offset, width, 0);
            let ones: u32 = bytes.iter().map(|byte| byte.count_ones()).sum();
            assert_eq!(ones as usize, 64 - width);
            set(&mut bytes, offset, width, 0x5a5a_5a5a_5a5a_5a5a);
            assert_eq!(
                get(&bytes, offset, width),
                0x5a5a_5a5a_5a5a_5a5a & (u64::MAX >> (64 - width))
            );
        }
    }
}
