//! Data segments at the end of a send WQE.

use mlx5_prm::wqe::{DataSegment, SEND_WQE_DS};
use thiserror::Error;
use zerocopy::FromBytes;

use crate::hca::qp::Data;

/// A malformed list of data segments.
#[derive(Debug, Error)]
pub(super) enum Malformed {
    #[error("it ends within a data segment")]
    Truncated,
    #[error("its inline data is longer than itself")]
    Inline,
}

/// Iterates over data segments. They are aligned to units of 16 bytes, and so is the beginning of the list.
pub(super) struct DataSegments<'a>(pub &'a [u8]);

impl<'a> DataSegments<'a> {
    fn parse(&mut self) -> Result<Data<'a>, Malformed> {
        let (segment, rest) = DataSegment::read_from_prefix(self.0).map_err(|_| Malformed::Truncated)?;
        let count = segment.byte_count.get();
        if count & DataSegment::INLINE == 0 {
            self.0 = rest;
            return Ok(Data::Memory(segment));
        }
        let start = size_of_val(&segment.byte_count);
        let end = start + (count & DataSegment::INLINE_LENGTH) as usize;
        let bytes = self.0.get(start..end).ok_or(Malformed::Inline)?;
        self.0 = self.0.get(end.next_multiple_of(SEND_WQE_DS)..).unwrap_or(&[]);
        Ok(Data::Inline(bytes))
    }
}

impl<'a> Iterator for DataSegments<'a> {
    type Item = Result<Data<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        (!self.0.is_empty()).then(|| self.parse())
    }
}
