//! Sizes as kernels and cuBLAS take them.

use cudarc::driver::LaunchConfig;
use glasshouse_core::traits::WorkloadError;

use super::super::plan::{TILE_COLUMNS, Tiles};
use super::device::told;

/// Rows of threads in a tile's block; `TILE_ROWS` of the kernels.
const TILE_ROWS: u32 = 8;
const THREADS: u32 = 256;

/// A size as cuBLAS takes it.
pub(super) fn int(value: usize) -> Result<i32, WorkloadError> {
    told("a size for cuBLAS", i32::try_from(value))
}

/// A size as a kernel takes it.
pub(super) fn word(value: usize) -> Result<u32, WorkloadError> {
    told("a size for a kernel", u32::try_from(value))
}

/// Threads in a row.
pub(super) fn line(threads: u32) -> LaunchConfig {
    let blocks = threads.div_ceil(THREADS).max(1);
    LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (THREADS, 1, 1), shared_mem_bytes: 0 }
}

/// A grid over tiles, their rows, columns and chunk, and where their sums lie.
type Split = (LaunchConfig, [u32; 3], [u64; 2]);

pub(super) fn split(tiles: &Tiles) -> Result<Split, WorkloadError> {
    let grid_dim = (word(tiles.across())?, word(tiles.chunks())?, 1);
    let grid = LaunchConfig { grid_dim, block_dim: (TILE_COLUMNS as u32, TILE_ROWS, 1), shared_mem_bytes: 0 };
    let sizes = [word(tiles.rows)?, word(tiles.columns)?, word(tiles.chunk)?];
    Ok((grid, sizes, [tiles.sums as u64, tiles.stride as u64]))
}
