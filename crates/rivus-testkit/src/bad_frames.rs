//! Frames that no honest peer sends, each with the error that it meets.
