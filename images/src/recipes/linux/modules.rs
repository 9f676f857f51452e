//! Kernel modules: which of them are needed, and the index files that `modprobe` reads.
//!
//! A package has no `modules.dep`; what a module depends on stands in the module itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The section of a module that holds `KEY=VALUE` texts, each with a zero at its end.
const INFO_SECTION: &[u8] = b".modinfo\0";
/// A 32-bit little-endian ELF file.
const ELF_START: &[u8] = b"\x7FELF\x01\x01";
/// Fields of the ELF header.
const SECTIONS_OFFSET: usize = 0x20;
const SECTION_COUNT: usize = 0x30;
const NAMES_INDEX: usize = 0x32;
/// Size of a section header, and fields of it.
const SECTION_HEADER: usize = 40;
const SECTION_NAME: usize = 0;
const SECTION_OFFSET: usize = 16;
const SECTION_SIZE: usize = 20;

/// A module that goes into the initramfs.
#[derive(Debug)]
pub struct Module {
    /// Its name, with underscores.
    pub name: String,
    /// Its path below the directory that holds the index files.
    pub path: String,
    /// The file's bytes.
    pub content: Vec<u8>,
    /// Names of modules that it cannot do without.
    depends: Vec<String>,
    /// Patterns of what it is good for.
    aliases: Vec<String>,
}

/// The modules `wanted`, as far as they exist below `directory`, after those they depend on, which
/// must exist.
pub fn select(directory: &Path, wanted: &[&str]) -> io::Result<Vec<Module>> {
    let mut files = BTreeMap::new();
    find(directory, &mut files)?;
    let mut selected = Vec::new();
    let mut seen = BTreeSet::new();
    for name in wanted.iter().filter(|name| files.contains_key(**name)) {
        add(directory, &files, name, &mut seen, &mut selected)?;
    }
    Ok(selected)
}

fn find(directory: &Path, files: &mut BTreeMap<String, PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            find(&path, files)?;
        } else if let Some(name) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".ko")) {
            files.insert(name.replace('-', "_"), path);
        }
    }
    Ok(())
}

fn add(
    directory: &Path,
    files: &BTreeMap<String, PathBuf>,
    name: &str,
    seen: &mut BTreeSet<String>,
    selected: &mut Vec<Module>,
) -> io::Result<()> {
    if !seen.insert(name.to_owned()) {
        return Ok(());
    }
    let file = files.get(name).ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, format!("there is no module {name}, which others need"))
    })?;
    let content = fs::read(file)?;
    let path = file.strip_prefix(directory).unwrap_or(file).to_string_lossy().into_owned();
    let info = information(&content).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{path} is no kernel module for i386"))
    })?;
    let values = |wanted: &str| {
        info.iter().filter(move |(key, _)| key == wanted).map(|(_, value)| value.clone()).collect::<Vec<_>>()
    };
    let depends = values("depends").join(",");
    let depends: Vec<_> =
        depends.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect();
    for dependency in &depends {
        add(directory, files, dependency, seen, selected)?;
    }
    let aliases = values("alias");
    selected.push(Module { name: name.to_owned(), path, content, depends, aliases });
    Ok(())
}

/// What `modules.dep` says: each module's path, and those of all it depends on, the first to load last.
pub fn dependencies(modules: &[Module]) -> String {
    let mut text = String::new();
    for module in modules {
        let mut needed = BTreeSet::new();
        let mut open: Vec<&str> = module.depends.iter().map(String::as_str).collect();
        while let Some(name) = open.pop() {
            if needed.insert(name) {
                let found = modules.iter().find(|other| other.name == name);
                open.extend(found.into_iter().flat_map(|other| &other.depends).map(String::as_str));
            }
        }
        // A module comes after its own dependencies in `modules`.
        let paths = modules.iter().rev().filter(|other| needed.contains(&*other.name));
        let paths: Vec<_> = paths.map(|other| format!(" {}", other.path)).collect();
        text += &format!("{}:{}\n", module.path, paths.concat());
    }
    text
}

/// What `modules.alias` says.
pub fn aliases(modules: &[Module]) -> String {
    let lines = modules
        .iter()
        .flat_map(|module| module.aliases.iter().map(|alias| format!("alias {} {}\n", alias, module.name)));
    lines.collect()
}

/// The keys and values of a module; `None`: this is none.
fn information(elf: &[u8]) -> Option<Vec<(String, String)>> {
    if !elf.starts_with(ELF_START) {
        return None;
    }
    let table = number(elf, SECTIONS_OFFSET)?;
    let header = |index: usize| elf.get(table.checked_add(index * SECTION_HEADER)?..)?.get(..SECTION_HEADER);
    let content = |index: usize| {
        let header = header(index)?;
        let start = number(header, SECTION_OFFSET)?;
        elf.get(start..start.checked_add(number(header, SECTION_SIZE)?)?)
    };
    let names = content(short(elf, NAMES_INDEX)?)?;
    let section = (0..short(elf, SECTION_COUNT)?).find(|index| {
        let name = header(*index).and_then(|header| names.get(number(header, SECTION_NAME)?..));
        name.is_some_and(|name| name.starts_with(INFO_SECTION))
    })?;
    let texts = content(section)?.split(|byte| *byte == 0);
    let pairs = texts.filter_map(|text| {
        let text = String::from_utf8_lossy(text);
        text.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()))
    });
    Some(pairs.collect())
}

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?) as usize)
}

fn short(bytes: &[u8], at: usize) -> Option<usize> {
    Some(usize::from(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A module file with these texts and nothing else.
    fn module(texts: &[&str]) -> Vec<u8> {
        let info: Vec<u8> = texts.iter().flat_map(|text| [text.as_bytes(), b"\0"].concat()).collect();
        let names = b"\0.shstrtab\0.modinfo\0";
        let mut elf = vec![0; 0x34];
        elf[..ELF_START.len()].copy_from_slice(ELF_START);
        let info_at = elf.len() as u32;
        elf.extend(&info);
        let names_at = elf.len() as u32;
        elf.extend(names);
        let table = elf.len() as u32;
        for (name, at, size) in
            [(0, 0, 0), (1, names_at, names.len() as u32), (11, info_at, info.len() as u32)]
        {
            for field in [name, 0, 0, 0, at, size, 0, 0, 0, 0u32] {
                elf.extend(field.to_le_bytes());
            }
        }
        elf[SECTIONS_OFFSET..SECTIONS_OFFSET + 4].copy_from_slice(&table.to_le_bytes());
        elf[SECTION_COUNT] = 3;
        elf[NAMES_INDEX] = 1;
        elf
    }

    #[test]
    fn dependencies_are_followed_and_come_first() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, texts: &[&str]| {
            let path = folder.path().join("kernel").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, module(texts)).unwrap();
        };
        put("ata/piix.ko", &["license=GPL", "depends=lib-ata,scsi", "alias=pci:v1*", "alias=x"]);
        put("ata/lib-ata.ko", &["depends=scsi"]);
        put("scsi/scsi.ko", &["depends="]);
        put("other.ko", &["depends="]);

        let modules = select(folder.path(), &["piix", "absent"]).unwrap();

        let names: Vec<_> = modules.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["scsi", "lib_ata", "piix"]);
        let expected = "kernel/scsi/scsi.ko:\nkernel/ata/lib-ata.ko: kernel/scsi/scsi.ko\n\
            kernel/ata/piix.ko: kernel/ata/lib-ata.ko kernel/scsi/scsi.ko\n";
        assert_eq!(dependencies(&modules), expected);
        assert_eq!(aliases(&modules), "alias pci:v1* piix\nalias x piix\n");
    }

    #[test]
    fn missing_dependency_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("disk.ko"), module(&["depends=bus"])).unwrap();
        let error = select(folder.path(), &["disk"]).unwrap_err();
        assert!(error.to_string().contains("bus"), "{error}");
    }

    #[test]
    fn damaged_modules_are_refused() {
        let whole = module(&["depends="]);
        assert!(information(&whole).is_some());
        for length in 0..whole.len() {
            assert!(information(&whole[..length]).is_none(), "{length} bytes");
        }
        let mut outside = whole;
        outside[SECTIONS_OFFSET..SECTIONS_OFFSET + 4].fill(0xFF);
        assert!(information(&outside).is_none());
    }
}
