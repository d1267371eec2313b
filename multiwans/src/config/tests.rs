//! The whole of `parse`, where the golden folders are too coarse.
