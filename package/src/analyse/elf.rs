//! What an ELF file says of itself: its machine, its soname, what it needs.
//!
//! Reads as little as possible: headers, the dynamic section, a few strings.

use std::io::{Read, Seek};
use std::ops::Range;

use object::elf::{self, FileHeader32, FileHeader64};
use object::read::elf::{Dyn, FileHeader, ProgramHeader, SectionHeader};
use object::{Endianness, ReadCache, ReadRef};

/// An ELF file of a machine that stones can name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Elf {
    /// As in the text of a dependency, such as `x86_64`.
    pub isa: &'static str,
    /// Whether its addresses have 64 bits.
    pub is_64: bool,
    /// A shared object, which position-independent programs are as well.
    pub is_shared: bool,
    /// An object that was not linked yet, or a kernel module.
    pub is_relocatable: bool,
    /// `DT_SONAME`, if it is UTF-8.
    pub soname: Option<String>,
    /// Each `DT_NEEDED` that is UTF-8, in the order of the file.
    pub needed: Vec<String>,
    /// Directories of `DT_RUNPATH`, else of `DT_RPATH`.
    pub run_path: Vec<String>,
    /// The program that loads it.
    pub interpreter: Option<String>,
    /// Its build id.
    pub build_id: Option<Vec<u8>>,
    /// Whether it has debug information of its own.
    pub has_debug_info: bool,
}

/// Names of machines in lower case and without `EM_`.
const MACHINES: [(elf::Machine, &str); 14] = [
    (elf::EM_386, "386"),
    (elf::EM_68K, "68k"),
    (elf::EM_AARCH64, "aarch64"),
    (elf::EM_ALPHA, "alpha"),
    (elf::EM_ARM, "arm"),
    (elf::EM_LOONGARCH, "loongarch"),
    (elf::EM_MIPS, "mips"),
    (elf::EM_PARISC, "parisc"),
    (elf::EM_PPC, "ppc"),
    (elf::EM_PPC64, "ppc64"),
    (elf::EM_RISCV, "riscv"),
    (elf::EM_S390, "s390"),
    (elf::EM_SH, "sh"),
    (elf::EM_X86_64, "x86_64"),
];

/// Reads an ELF file; `None` if it is none, is damaged, or is for a machine
/// without a name here.
pub fn read(file: impl Read + Seek) -> Option<Elf> {
    let cache = ReadCache::new(file);
    let file = Bounded(&cache);
    match file.read_bytes_at(0, 5).ok()? {
        b"\x7fELF\x01" => of_header(FileHeader32::<Endianness>::parse(file).ok()?, file),
        b"\x7fELF\x02" => of_header(FileHeader64::<Endianness>::parse(file).ok()?, file),
        _ => None,
    }
}

/// Refuses what no real file asks for: sizes in a damaged file would otherwise
/// be those of allocations.
struct Bounded<'a, R: Read + Seek>(&'a ReadCache<R>);

impl<R: Read + Seek> Clone for Bounded<'_, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R: Read + Seek> Copy for Bounded<'_, R> {}

const MAX_READ: u64 = 4 << 20;
/// More libraries than this no real file needs.
const MAX_NEEDED: usize = 4096;

impl<'a, R: Read + Seek> ReadRef<'a> for Bounded<'a, R> {
    fn len(self) -> Result<u64, ()> {
        self.0.len()
    }

    fn read_bytes_at(self, offset: u64, size: u64) -> Result<&'a [u8], ()> {
        if size > MAX_READ { Err(()) } else { self.0.read_bytes_at(offset, size) }
    }

    fn read_bytes_at_until(self, range: Range<u64>, delimiter: u8) -> Result<&'a [u8], ()> {
        self.0.read_bytes_at_until(range, delimiter)
    }
}

fn of_header<'data, H>(header: &H, file: impl ReadRef<'data>) -> Option<Elf>
where
    H: FileHeader<Endian = Endianness>,
{
    let endian = header.endian().ok()?;
    let machine = header.e_machine(endian);
    let isa = MACHINES.iter().find(|row| row.0 == machine)?.1;
    let is_shared = header.e_type(endian) == elf::ET_DYN;
    let is_relocatable = header.e_type(endian) == elf::ET_REL;
    let is_64 = header.is_type_64();
    let mut elf = Elf { isa, is_64, is_shared, is_relocatable, ..Elf::default() };
    of_segments(&mut elf, header, endian, file);
    of_sections(&mut elf, header, endian, file);
    Some(elf)
}

/// What a loader sees. What is damaged is left out.
fn of_segments<'data, H>(elf: &mut Elf, header: &H, endian: Endianness, file: impl ReadRef<'data>)
where
    H: FileHeader<Endian = Endianness>,
{
    let Ok(segments) = header.program_headers(endian, file) else { return };
    for segment in segments {
        if segment.p_type(endian) == elf::PT_INTERP
            && let Ok(bytes) = segment.data(endian, file)
        {
            elf.interpreter = text(bytes.split(|byte| *byte == 0).next().unwrap_or_default());
        }
        if let Ok(Some(mut notes)) = segment.notes(endian, file) {
            while let Ok(Some(note)) = notes.next() {
                if elf.build_id.is_none()
                    && note.name() == elf::ELF_NOTE_GNU
                    && note.n_type(endian) == elf::NT_GNU_BUILD_ID
                    && (2..=64).contains(&note.desc().len())
                {
                    elf.build_id = Some(note.desc().to_vec());
                }
            }
        }
    }
    let dynamic = segments.iter().find_map(|segment| segment.dynamic(endian, file).ok()?);
    let Some(dynamic) = dynamic else { return };
    let entries = || dynamic.iter().take_while(|entry| entry.d_tag(endian) != elf::DT_NULL);
    let value = |tag| {
        entries().find(|entry| entry.d_tag(endian) == tag).map(|entry| entry.d_val(endian).into())
    };
    let Some(strings): Option<u64> = value(elf::DT_STRTAB) else { return };
    let string = |offset: u64| -> Option<String> {
        let address = strings.checked_add(offset)?;
        // The string lies in one of the segments that are loaded.
        let offset = segments.iter().find_map(|segment| {
            let start: u64 = segment.p_vaddr(endian).into();
            let size: u64 = segment.p_filesz(endian).into();
            let is_loaded = segment.p_type(endian) == elf::PT_LOAD;
            let within = address.checked_sub(start).filter(|within| is_loaded && *within < size)?;
            within.checked_add(segment.p_offset(endian).into())
        })?;
        let end = file.len().ok()?;
        text(file.read_bytes_at_until(offset..end, 0).ok()?)
    };
    if elf.is_shared {
        elf.soname = value(elf::DT_SONAME).and_then(string);
    }
    let needed = entries().filter(|entry| entry.d_tag(endian) == elf::DT_NEEDED);
    elf.needed =
        needed.filter_map(|entry| string(entry.d_val(endian).into())).take(MAX_NEEDED).collect();
    let path = value(elf::DT_RUNPATH).or_else(|| value(elf::DT_RPATH)).and_then(string);
    let directories = path.iter().flat_map(|path| path.split(':'));
    elf.run_path = directories.filter(|it| !it.is_empty()).map(ToOwned::to_owned).collect();
}

/// What a debugger sees.
fn of_sections<'data, H>(elf: &mut Elf, header: &H, endian: Endianness, file: impl ReadRef<'data>)
where
    H: FileHeader<Endian = Endianness>,
{
    let Ok(sections) = header.sections(endian, file) else { return };
    elf.has_debug_info = sections.iter().any(|section| {
        let name = sections.section_name(endian, section).unwrap_or_default();
        section.sh_type(endian) != elf::SHT_NOBITS && name == b".debug_info"
    });
}

fn text(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).ok().filter(|text| !text.is_empty()).map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    /// A shared object for x86_64 with the soname `libx.so.1`: header, two
    /// segments, the dynamic section, its strings.
    fn library() -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        let half = |bytes: &mut Vec<u8>, value: u16| bytes.extend_from_slice(&value.to_le_bytes());
        let word = |bytes: &mut Vec<u8>, value: u32| bytes.extend_from_slice(&value.to_le_bytes());
        let long = |bytes: &mut Vec<u8>, value: u64| bytes.extend_from_slice(&value.to_le_bytes());
        half(&mut bytes, elf::ET_DYN.0);
        half(&mut bytes, elf::EM_X86_64.0);
        word(&mut bytes, 1);
        // Entry, offsets of the program and the section headers.
        [0, 64, 0].into_iter().for_each(|value| long(&mut bytes, value));
        word(&mut bytes, 0);
        [64, 56, 2, 64, 0, 0].into_iter().for_each(|value| half(&mut bytes, value));

        const BASE: u64 = 0x1000;
        let (dynamic, strings) = (64 + 2 * 56, 64 + 2 * 56 + 3 * 16);
        for (kind, offset, size) in [(1, 0, 4096), (2, dynamic, 3 * 16)] {
            word(&mut bytes, kind);
            word(&mut bytes, 4);
            [offset, BASE + offset, BASE + offset, size, size, 8]
                .into_iter()
                .for_each(|value| long(&mut bytes, value));
        }
        for (tag, value) in [(5, BASE + strings), (14, 1), (0, 0)] {
            long(&mut bytes, tag);
            long(&mut bytes, value);
        }
        bytes.extend_from_slice(b"\0libx.so.1\0");
        bytes
    }

    fn read_bytes(bytes: &[u8]) -> Option<Elf> {
        read(Cursor::new(bytes))
    }

    fn read_all<'a>(files: impl IntoIterator<Item = &'a [u8]>) -> Vec<Option<Elf>> {
        files.into_iter().map(read_bytes).collect()
    }

    #[test]
    fn a_library_has_a_machine_and_a_soname() {
        let soname = Some("libx.so.1".into());
        let expected =
            Elf { isa: "x86_64", is_64: true, is_shared: true, soname, ..Elf::default() };
        assert_eq!(read_bytes(&library()), Some(expected));
        let program = std::env::current_exe().expect("the test is a file");
        let program = std::fs::read(program).expect("it can be read");
        let found = read_bytes(&program).expect("it is an ELF file");
        assert_eq!((found.isa, found.soname), (std::env::consts::ARCH, None));
        assert!(found.needed.iter().any(|name| name == "libc.so.6"), "{:?}", found.needed);
        assert!(found.interpreter.is_some_and(|path| path.contains("/ld-")));
        assert_eq!(read_bytes(b"#!/bin/sh\n"), None);
        assert_eq!(read_bytes(b""), None);
    }

    #[test]
    fn damaged_files_are_read_without_a_panic() {
        let whole = library();
        let prefixes = (0..whole.len()).map(|len| &whole[..len]);
        for (len, found) in read_all(prefixes).into_iter().enumerate() {
            assert_eq!(found.and_then(|elf| elf.soname), None, "{len} bytes");
        }
        let damage = |at: usize, bits: u8| {
            let mut damaged = whole.clone();
            damaged[at] ^= bits;
            damaged
        };
        let damaged: Vec<Vec<u8>> = (0..whole.len())
            .flat_map(|at| [damage(at, 0xff), damage(at, 0x80), damage(at, 0x01)])
            .collect();
        for found in read_all(damaged.iter().map(Vec::as_slice)) {
            let soname = found.and_then(|elf| elf.soname).unwrap_or_default();
            assert!(soname.len() <= 10, "{soname:?}");
        }
        // A dynamic section of 2^56 bytes in a small file.
        let mut huge = whole;
        huge[64 + 56 + 32 + 7] = 1;
        assert_eq!(read_bytes(&huge).expect("the header is intact").soname, None);
    }
}
