//! placeholder
use crate::failure::Failure;
use std::path::PathBuf;
use std::process::ExitCode;
pub(crate) async fn run(_json: bool, _keep: Option<PathBuf>) -> Result<ExitCode, Failure> {
    Ok(ExitCode::SUCCESS)
}
