//! Where the hard disk's boot loader finds what it needs: shared by its source, which the build
//! script assembles, and the recipe, which fills it in.

/// Bytes in a sector.
pub const SECTOR: usize = 512;
/// Sectors of the second stage, which follow the master boot record.
pub const STAGE_SECTORS: usize = 8;
/// The second stage's data, from its start. It begins with what the recipe fills in.
pub const STAGE_DATA: usize = 0x600;
/// The recipe's data, from the start of the disk.
pub const PARAMETERS_AT: usize = SECTOR + STAGE_DATA;
/// First sector of the kernel's file (32 bits, as all of these). The parameters are counted from
/// [`PARAMETERS_AT`].
pub const KERNEL_START: usize = 0;
/// Sectors of the kernel's file.
pub const KERNEL_SECTORS: usize = 4;
/// First sector of the initramfs's file.
pub const INITRD_START: usize = 8;
/// Bytes of the initramfs.
pub const INITRD_BYTES: usize = 12;
/// The command line, which ends in a zero.
pub const COMMAND_LINE: usize = 16;
/// Room for the command line, its end included.
pub const COMMAND_LINE_BYTES: usize = 1024;
/// All parameters.
pub const PARAMETERS_BYTES: usize = COMMAND_LINE + COMMAND_LINE_BYTES;
/// The partition table in the master boot record.
pub const PARTITION_TABLE: usize = 446;
