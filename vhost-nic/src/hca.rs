//! hca
