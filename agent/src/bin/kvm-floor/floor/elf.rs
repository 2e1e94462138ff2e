//! The guest as an ELF file that other VMMs boot by PVH, with its functions as symbols.

use super::guest;
use anyhow::{Context, Result};
use object::{
    Endianness, elf,
    write::elf::{FileHeader, ProgramHeader, SectionHeader, SinglePhaseWriter, Sym, Writer},
};

/// Type of the note that holds the 32-bit PVH entry (`XEN_ELFNOTE_PHYS32_ENTRY`).
const NOTE_PHYS32_ENTRY: u32 = 18;
/// Alignment of the image in the file and in memory.
const PAGE: u64 = 4096;
/// Section of the image: the first after the null section.
const IMAGE_SECTION: u32 = 1;

/// Builds the file.
///
/// # Errors
/// When the writer refuses a part of it.
pub fn build() -> Result<Vec<u8>> {
    let symbols = guest::symbols();
    let (image, load_address) = (guest::image(), u64::from(guest::LOAD_ADDRESS));
    let (mut file, mut headers) = (Vec::new(), Vec::new());
    let mut writer: SinglePhaseWriter = Writer::new_single_phase(Endianness::Little, true, &mut file);

    writer.write_file_header(&FileHeader {
        e_type: elf::ET_EXEC,
        e_machine: elf::EM_X86_64,
        e_entry: load_address,
        ..FileHeader::default()
    })?;
    writer.write_program_headers_placeholder(2);
    let note = pvh_note();
    let note_offset = writer.write_align(4);
    writer.write(&note);
    let image_offset = writer.write_align(PAGE);
    writer.write(image);

    let image_name = writer.add_section_name(b".text");
    let note_name = writer.add_section_name(b".note.Xen");
    writer.write_null_symbol();
    for symbol in &symbols {
        let name = writer.add_string(symbol.name.as_bytes());
        let st_name = writer.string_offset(Some(name));
        writer.write_symbol(&Sym {
            section: Some(IMAGE_SECTION),
            st_name,
            st_info: elf::SymbolInfo::new(elf::STB_GLOBAL, elf::STT_FUNC),
            st_other: elf::SymbolOther::default(),
            st_shndx: elf::SymbolSection::default(),
            st_value: symbol.address.into(),
            st_size: symbol.size.into(),
        });
    }
    writer.write_strtab()?;
    writer.write_shstrtab()?;

    writer.write_null_section_header();
    let sh_name = writer.section_name_offset(Some(image_name));
    writer.write_section_header(&SectionHeader {
        sh_name,
        sh_type: elf::SHT_PROGBITS,
        sh_flags: elf::SHF_ALLOC | elf::SHF_EXECINSTR | elf::SHF_WRITE,
        sh_addr: load_address,
        sh_offset: image_offset,
        sh_size: image.len() as u64,
        sh_addralign: PAGE,
        ..SectionHeader::default()
    });
    let sh_name = writer.section_name_offset(Some(note_name));
    writer.write_section_header(&SectionHeader {
        sh_name,
        sh_type: elf::SHT_NOTE,
        sh_offset: note_offset,
        sh_size: note.len() as u64,
        sh_addralign: 4,
        ..SectionHeader::default()
    });
    writer.write_strtab_section_header();
    writer.write_symtab_section_header(1);
    writer.write_shstrtab_section_header();

    let segment = |p_type, p_flags, p_offset, address, size, p_align| ProgramHeader {
        p_type,
        p_flags,
        p_offset,
        p_vaddr: address,
        p_paddr: address,
        p_filesz: size,
        p_memsz: size,
        p_align,
    };
    let access = elf::PF_R | elf::PF_W | elf::PF_X;
    let segments = [
        segment(elf::PT_LOAD, access, image_offset, load_address, image.len() as u64, PAGE),
        segment(elf::PT_NOTE, elf::PF_R, note_offset, 0, note.len() as u64, 4),
    ];
    writer.write_headers_to(&mut headers, &segments)?;
    file.get_mut(..headers.len()).context("the ELF file is shorter than its headers")?.copy_from_slice(&headers);
    Ok(file)
}

/// The note that makes a VMM enter the image by PVH: sizes of name and value, type, name, value.
fn pvh_note() -> Vec<u8> {
    let entry = u64::from(guest::LOAD_ADDRESS).to_le_bytes();
    let mut note = Vec::new();
    for word in [4, entry.len() as u32, NOTE_PHYS32_ENTRY] {
        note.extend(word.to_le_bytes());
    }
    note.extend(b"Xen\0");
    note.extend(entry);
    note
}
