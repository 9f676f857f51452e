//! The files of a saved VM: where each of them is when it goes on.

use crate::cli::RestoreArgs;
use crate::progress::say;
use anyhow::{Context, Result, bail, ensure};
use ipc::machine::MachineConfig;
use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use vmm::saved::{MachineFile, Match, SavedVm, Use};

/// Name of an image whose path has none.
const NAMELESS: &str = "image";

/// Images that are to outlive the VM: where each was, and where it is now. When this is dropped before [`KeptImages::keep`] they
/// are removed, as the VM did not start.
#[derive(Default)]
pub struct KeptImages {
    images: Vec<(PathBuf, PathBuf)>,
}

impl KeptImages {
    /// The VM runs: they stay. Says where they are.
    pub fn keep(mut self) {
        for (was, is) in std::mem::take(&mut self.images) {
            say(&format!("image {} is kept as {}", was.display(), is.display()));
        }
    }
}

impl Drop for KeptImages {
    fn drop(&mut self) {
        for (_, path) in &self.images {
            // Somebody else may have removed it.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Finds the machine's files where they are now. Those that are kept inside are put where they are to be, if `extract`: into a folder
/// of this run, or images into the one that the command line names.
pub fn place_files(
    args: &RestoreArgs,
    vm: &mut SavedVm,
    config: &mut MachineConfig,
    extract: bool,
) -> Result<(Option<TempDir>, KeptImages)> {
    let files = vm.files.clone();
    let mut given = Given { floppies: args.floppy.iter(), disks: args.disk.iter() };
    let mut keep = args.keep_disks.as_deref().map(Keep::new).transpose()?;
    let (mut folder, mut kept) = (None, KeptImages::default());
    for (index, file) in files.iter().enumerate() {
        let elsewhere = given.next(file.used_as);
        let Some(place) = place_of(config, file.used_as) else { continue };
        if file.outside.is_some() || elsewhere.is_some() {
            let path = elsewhere.map_or_else(|| Ok(file.path.clone()), std::path::absolute)?;
            check_image(file, &path, args.force)?;
            *place = path;
        } else if let Some(keep) = keep.as_mut().filter(|_| is_image(file.used_as)) {
            *place = keep.place(&file.path)?;
            if extract {
                put_whole_file(vm, index, &keep.folder, place)?;
                kept.images.push((file.path.clone(), place.clone()));
            }
        } else if extract {
            if folder.is_none() {
                folder = Some(tempfile::Builder::new().prefix("vmsim-restored-").tempdir()?);
            }
            let Some(folder) = &folder else { continue };
            *place = folder.path().join(format!("{index}-{}", base_name(&file.path)));
            let file = File::create_new(&*place).with_context(|| format!("File {}", place.display()))?;
            put_file(vm, index, &file)?;
        }
    }
    ensure!(
        given.floppies.len() + given.disks.len() == 0,
        "more images are given than the machine has drives with a medium"
    );
    ensure!(
        keep.is_none_or(|keep| !keep.names.is_empty()),
        "it has no image to keep, as it was saved without --with-disks: leave out --keep-disks"
    );
    Ok((folder, kept))
}

/// Where images are kept.
struct Keep {
    folder: PathBuf,
    /// Names that are taken by images before.
    names: BTreeSet<PathBuf>,
}

impl Keep {
    fn new(folder: &Path) -> Result<Self> {
        ensure!(
            folder.is_dir(),
            "there is no folder {}: make it before images are kept in it",
            folder.display()
        );
        Ok(Self { folder: std::path::absolute(folder)?, names: BTreeSet::new() })
    }

    /// A place for the image that was at `path`: of the same name, with a number if another image has that.
    fn place(&mut self, path: &Path) -> Result<PathBuf> {
        let name = Path::new(path.file_name().unwrap_or(NAMELESS.as_ref()));
        let numbered = |number: u32| {
            let mut numbered = name.file_stem().unwrap_or_default().to_owned();
            numbered.push(format!("-{number}"));
            let numbered = PathBuf::from(numbered);
            name.extension().map_or_else(|| numbered.clone(), |extension| numbered.with_extension(extension))
        };
        let mut names = std::iter::once(name.to_owned()).chain((2..).map(numbered));
        let name = names.find(|name| !self.names.contains(name)).context("too many images")?;
        let place = self.folder.join(&name);
        self.names.insert(name);
        ensure!(
            !place.exists(),
            "{} exists already: remove it or keep the images elsewhere",
            place.display()
        );
        Ok(place)
    }
}

/// Whether a file is what a drive has in it.
fn is_image(used_as: Use) -> bool {
    match used_as {
        Use::Floppy(_) | Use::Disk(_) => true,
        Use::Firmware | Use::VideoRom => false,
    }
}

/// Images that the command line names, in the order of the drives.
struct Given<'a> {
    floppies: std::slice::Iter<'a, PathBuf>,
    disks: std::slice::Iter<'a, PathBuf>,
}

impl Given<'_> {
    fn next(&mut self, used_as: Use) -> Option<&Path> {
        let next = match used_as {
            Use::Floppy(_) => self.floppies.next(),
            Use::Disk(_) => self.disks.next(),
            Use::Firmware | Use::VideoRom => None,
        };
        next.map(PathBuf::as_path)
    }
}

fn base_name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// Where the machine's description has the path of a file.
fn place_of(config: &mut MachineConfig, used_as: Use) -> Option<&mut PathBuf> {
    match used_as {
        Use::Firmware => Some(&mut config.firmware),
        Use::VideoRom => config.video_rom.as_mut(),
        Use::Floppy(number) => Some(&mut config.floppies.get_mut(usize::from(number))?.as_mut()?.path),
        Use::Disk(number) => Some(&mut config.disks.get_mut(usize::from(number))?.as_mut()?.path),
    }
}

fn check_image(file: &MachineFile, path: &Path, force: bool) -> Result<()> {
    let shown = path.display();
    let image = File::open(path)
        .with_context(|| format!("image {shown}: give the place where it is now (--floppy or --disk)"))?;
    // One that was inside is not known by anything but its content.
    let Some(identity) = &file.outside else { return Ok(()) };
    let why = match identity.check(&image).with_context(|| format!("image {shown}"))? {
        Match::Same => return Ok(()),
        Match::Length(len) => format!("had {} bytes and has {len}", identity.len),
        Match::Content => "has another content".into(),
    };
    if force {
        say(&format!("image {shown} {why} since the VM was saved; taken all the same (--force)"));
        return Ok(());
    }
    bail!("image {shown} {why} since the VM was saved: put back what it was, or use --force");
}

fn put_file(vm: &mut SavedVm, index: usize, file: &File) -> Result<()> {
    file.set_len(vm.file_len(index).unwrap_or(0))?;
    vm.read_file(index, |at, block| file.write_all_at(block, at))?;
    Ok(())
}

/// The same with one that is there when it is whole.
fn put_whole_file(vm: &mut SavedVm, index: usize, folder: &Path, path: &Path) -> Result<()> {
    let place = || format!("File {}", path.display());
    let file = tempfile::Builder::new().prefix(".vmsim-restore-").tempfile_in(folder).with_context(place)?;
    put_file(vm, index, file.as_file()).with_context(place)?;
    file.persist_noclobber(path).map_err(|error| error.error).with_context(place)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_of_one_name_are_kept_under_several_and_nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let mut keep = Keep::new(folder.path()).unwrap();
        let mut place = |path: &str| {
            let place = keep.place(Path::new(path))?;
            Ok::<_, anyhow::Error>(place.strip_prefix(folder.path())?.display().to_string())
        };
        assert_eq!(place("/a/hd.img").unwrap(), "hd.img");
        assert_eq!(place("/b/hd.img").unwrap(), "hd-2.img");
        assert_eq!(place("/c/hd.img").unwrap(), "hd-3.img");
        assert_eq!(place("/a/disk").unwrap(), "disk");
        assert_eq!(place("/b/disk").unwrap(), "disk-2");
        assert_eq!(place("/").unwrap(), "image");
        std::fs::write(folder.path().join("other.img"), "precious").unwrap();
        let error = place("/a/other.img").unwrap_err().to_string();
        assert!(error.contains("other.img exists already"), "{error}");
        assert!(Keep::new(&folder.path().join("none")).is_err());
    }

    #[test]
    fn kept_images_go_unless_the_vm_starts() {
        let folder = tempfile::tempdir().unwrap();
        let images = || {
            let path = folder.path().join("hd.img");
            std::fs::write(&path, "sectors").unwrap();
            KeptImages { images: vec![("/was/hd.img".into(), path)] }
        };
        drop(images());
        assert!(!folder.path().join("hd.img").exists());
        images().keep();
        assert!(folder.path().join("hd.img").exists());
    }
}
