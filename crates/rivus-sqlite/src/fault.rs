//! What a failure of SQLite means to the caller.

use rivus_core::store::StoreError;
use rusqlite::{Error, ErrorCode, ffi};

/// The error of the store called `name`.
pub(crate) fn fault(name: &str, error: &Error) -> StoreError {
    let text = format!("{name}: {error}");
    match error {
        Error::SqliteFailure(code, _) => match code.code {
            ErrorCode::DiskFull => StoreError::Full(text),
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed => {
                StoreError::Busy(text)
            }
            // A table that is missing is an `Unknown` error.
            ErrorCode::NotADatabase
            | ErrorCode::DatabaseCorrupt
            | ErrorCode::ConstraintViolation
            | ErrorCode::TypeMismatch
            | ErrorCode::Unknown => StoreError::Damaged(text),
            ErrorCode::SystemIoFailure if NO_ROOM.contains(&code.extended_code) => StoreError::Full(text),
            ErrorCode::SystemIoFailure if code.extended_code == ffi::SQLITE_IOERR_CORRUPTFS => {
                StoreError::Damaged(text)
            }
            _ => StoreError::Io(text),
        },
        Error::InvalidPath(_) | Error::NulError(_) => StoreError::Io(text),
        // The content has another type or form than this version writes.
        _ => StoreError::Damaged(text),
    }
}

/// SQLite says "full" for ENOSPC only. A file size limit (EFBIG) and a quota (EDQUOT) are write errors to it, and
/// by far the likeliest ones.
const NO_ROOM: [i32; 2] = [ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_IOERR_SHMSIZE];
