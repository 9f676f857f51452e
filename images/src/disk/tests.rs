use super::*;
use proptest::prelude::*;
use std::fs;
use std::process::Command;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn fat(format: FloppyFormat, label: &str) -> Kind {
    Kind::Floppy { format, content: FloppyContent::Fat { label: Some(label.into()) } }
}

fn make(path: &Path, kind: &Kind) -> Result<(), DiskError> {
    create(path, kind, &ProgressBar::hidden())
}

#[test]
fn formatted_floppies_of_all_sizes_can_be_opened_and_written() {
    let folder = folder();
    for format in FloppyFormat::ALL {
        let path = folder.path().join(format.name());
        make(&path, &fat(*format, "my label")).unwrap();

        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let volume = fatfs::FileSystem::new(file, fatfs::FsOptions::new()).unwrap();
        volume.root_dir().create_file("HELLO.TXT").unwrap().write_all(b"hello").unwrap();
        assert_eq!(volume.fat_type(), fatfs::FatType::Fat12);
        drop(volume);

        let info = info(&path).unwrap();
        assert_eq!(info.medium, Medium::Floppy(*format));
        assert_eq!(info.geometry, Some(format.geometry()));
        assert_eq!(info.volume.unwrap().label.as_deref(), Some("MY LABEL"));
        assert_eq!(info.size, format.bytes());
    }
}

#[test]
fn mtools_agree_about_formatted_floppies() {
    let folder = folder();
    for format in FloppyFormat::ALL {
        let path = folder.path().join(format.name());
        make(&path, &fat(*format, "VMSIM")).unwrap();

        let Ok(minfo) = Command::new("minfo").arg("-i").arg(&path).arg("::").output() else {
            eprintln!("skipped: mtools are not installed");
            return;
        };
        let listed = Command::new("mdir").arg("-i").arg(&path).arg("::").output().unwrap();

        let minfo = String::from_utf8_lossy(&minfo.stdout).into_owned();
        let geometry = format.geometry();
        assert!(minfo.contains(&format!("sectors per track: {}", geometry.sectors)), "{minfo}");
        assert!(minfo.contains(&format!("heads: {}", geometry.heads)), "{minfo}");
        let listing = String::from_utf8_lossy(&listed.stdout).into_owned();
        assert!(listed.status.success() && listing.contains("is VMSIM"), "{listing}");
    }
}

#[test]
fn blank_floppy_is_zeroes() {
    let folder = folder();
    let path = folder.path().join("a.img");
    make(&path, &Kind::Floppy { format: FloppyFormat::F1440, content: FloppyContent::Blank }).unwrap();

    assert_eq!(fs::read(&path).unwrap(), vec![0; 1_474_560]);
    let info = info(&path).unwrap();
    assert!(!info.boot_signature && info.volume.is_none() && info.partitions.is_empty());
}

#[test]
fn hard_disk_is_sparse_unless_space_is_asked_for() {
    let folder = folder();
    let (sparse, full) = (folder.path().join("sparse"), folder.path().join("full"));
    let progress = ProgressBar::hidden();
    make(&sparse, &Kind::HardDisk { size: 64 << 20, allocate: false }).unwrap();
    create(&full, &Kind::HardDisk { size: 20 << 20, allocate: true }, &progress).unwrap();

    let (sparse, full) = (info(&sparse).unwrap(), info(&full).unwrap());
    assert_eq!((sparse.size, sparse.medium), (64 << 20, Medium::HardDisk));
    assert!(sparse.allocated < 1 << 20);
    assert_eq!(sparse.geometry, Some(Geometry { cylinders: 130, heads: 16, sectors: 63 }));
    assert!(full.allocated >= 20 << 20);
    assert_eq!(progress.position(), 20 << 20);
}

#[test]
fn existing_file_is_not_overwritten() {
    let folder = folder();
    let path = folder.path().join("a.img");
    fs::write(&path, "precious").unwrap();

    let error = make(&path, &fat(FloppyFormat::F360, "X")).unwrap_err();

    assert!(matches!(error, DiskError::Exists(_)), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"precious");
}

#[test]
fn full_disk_leaves_nothing_behind() {
    let folder = folder();
    let path = folder.path().join("a.img");

    let error = create_with(&path, |file| {
        file.write_all(b"begun")?;
        Err(Errno::NOSPC.into())
    })
    .unwrap_err();

    assert!(matches!(error, DiskError::NoSpace(_)), "{error}");
    assert!(!path.exists());
}

#[test]
fn senseless_requests_are_refused_before_a_file_exists() {
    let folder = folder();
    let path = folder.path().join("a.img");
    for size in [0, 512, u64::MAX, (1 << 20) + 1] {
        assert!(make(&path, &Kind::HardDisk { size, allocate: false }).is_err(), "{size}");
    }
    for label in ["", "twelve chars", "a.b", " x", "stra\u{df}e"] {
        assert!(matches!(make(&path, &fat(FloppyFormat::F720, label)), Err(DiskError::Label(_))), "{label}");
    }
    assert!(!path.exists());
}

#[test]
fn sizes_are_read_as_people_write_them() {
    for (text, bytes) in [
        ("64M", 64 << 20),
        ("512k", 512 << 10),
        ("2G", 2 << 30),
        ("1 GiB", 1 << 30),
        ("10MB", 10 << 20),
        ("4096", 4096),
        ("1.44M", 1_474_560),
        ("1.2M", 1_228_800),
        ("2.88mb", 2_949_120),
    ] {
        assert_eq!(parse_size(text).unwrap(), bytes, "{text}");
    }
    for text in ["", "M", "-1M", "1.5G", "64X", "64MM", "99999999P", "0x10"] {
        assert!(parse_size(text).is_err(), "{text}");
    }
    assert_eq!(display_size(64 << 20), "64 MiB");
    assert_eq!(display_size(1_474_560), "1.4 MiB");
    assert_eq!(display_size(100), "100 bytes");
}

#[test]
fn floppy_sizes_are_known_by_name_and_kilobytes() {
    for format in FloppyFormat::ALL {
        assert_eq!(format.name().parse::<FloppyFormat>().unwrap(), *format);
    }
    assert_eq!("1440k".parse::<FloppyFormat>().unwrap(), FloppyFormat::F1440);
    assert_eq!("2.88mb".parse::<FloppyFormat>().unwrap(), FloppyFormat::F2880);
    assert!("100K".parse::<FloppyFormat>().unwrap_err().to_string().contains("1.44M"));
}

#[test]
fn partition_table_with_a_fat_volume_is_shown() {
    const START: usize = 63;
    let folder = folder();
    let path = folder.path().join("c.img");
    let floppy =
        floppy::image(FloppyFormat::F1440, &FloppyContent::Fat { label: Some("INNER".into()) }).unwrap();
    let mut disk = vec![0; 4 << 20];
    disk[START * 512..START * 512 + floppy.len()].copy_from_slice(&floppy);
    disk[446] = 0x80;
    disk[450] = 0x01;
    disk[454..458].copy_from_slice(&(START as u32).to_le_bytes());
    disk[458..462].copy_from_slice(&2880u32.to_le_bytes());
    disk[510..512].copy_from_slice(&[0x55, 0xAA]);
    fs::write(&path, disk).unwrap();

    let info = info(&path).unwrap();

    assert_eq!(info.partitions.len(), 1);
    assert!(info.partitions[0].bootable);
    assert_eq!(info.partitions[0].volume.as_ref().unwrap().label.as_deref(), Some("INNER"));
    assert!(
        info.to_string()
            .contains("partition 1: 01h FAT12, 1.4 MiB from sector 63, active; FAT12, label INNER")
    );
}

#[test]
fn qcow2_and_cd_images_are_recognised() {
    let folder = folder();
    let (qcow2, cd) = (folder.path().join("q"), folder.path().join("cd"));
    let mut header = vec![0; 512];
    header[..8].copy_from_slice(b"QFI\xFB\0\0\0\x03");
    header[24..32].copy_from_slice(&(1u64 << 30).to_be_bytes());
    fs::write(&qcow2, header).unwrap();
    let mut iso = vec![0; 40 * 2048];
    iso[16 * 2048..16 * 2048 + 6].copy_from_slice(b"\x01CD001");
    iso[16 * 2048 + 40..16 * 2048 + 44].copy_from_slice(b"DISC");
    fs::write(&cd, iso).unwrap();

    let (qcow2, cd) = (info(&qcow2).unwrap(), info(&cd).unwrap());

    assert_eq!(qcow2.format, Format::Qcow2 { version: 3, has_backing_file: false });
    assert_eq!(qcow2.size, 1 << 30);
    assert_eq!(cd.medium, Medium::CdRom { label: "DISC".into(), bootable: false });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn hostile_boot_sectors_do_no_harm(mut sector in proptest::collection::vec(any::<u8>(), 512), valid in any::<bool>()) {
        if valid {
            // Enough of a parameter block that the rest is looked at.
            sector[0] = 0xEB;
            sector[11..14].copy_from_slice(&[0, 2, 1]);
            sector[16] = 2;
            sector[21] = 0xF8;
            sector[510..].copy_from_slice(&[0x55, 0xAA]);
        }
        let folder = folder();
        let path = folder.path().join("x");
        fs::write(&path, sector).unwrap();
        let shown = info(&path).unwrap().to_string();
        prop_assert!(shown.is_ascii());
    }
}

#[test]
fn copies_are_the_same_and_sparse_and_never_overwrite() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    let mut image = vec![0; 3 * COPY_STEP + 512];
    image[COPY_STEP + 7] = 1;
    fs::write(&from, &image).unwrap();

    copy(&from, &to).unwrap();

    assert_eq!(fs::read(&to).unwrap(), image);
    assert!(info(&to).unwrap().allocated < image.len() as u64);
    assert!(matches!(copy(&from, &to), Err(DiskError::Exists(_))));
}
