/** The names and types of files that `attachments` refuses by default. docs/handlers/attachments.md has the reasons. */

/** Endings of files that run, that set up the machine, or that hide the origin of the files in them, when they are opened. */
const ENDINGS: Readonly<Record<string, string>> = {
  programs: "app appimage com cpl dll drv ex ex_ exe gadget jar lib ocx pif scr sys vxd wll xbap xll",
  packages:
    "apk appinstaller application appref-ms appx appxbundle dmg jnlp mpkg msi msix msixbundle msp mst msu pkg xapk",
  "scripts of Windows":
    "bas bat cdxml cmd fxp hta js jse mjs msh msh1 msh1xml msh2 msh2xml mshxml nsh ps1 ps1xml ps2 ps2xml psc1 psc2 psd1 " +
    "psdm1 psm1 sct shb shs vb vbe vbp vbs ws wsc wsf wsh",
  "other scripts": "command pyc pyo pyw pyz pyzw scpt scptd terminal workflow",
  "settings, shortcuts and help":
    "appcontent-ms chm desktop diagcab diagcfg diagpkg hlp hpj inf ins isp its library-ms lnk mcf msc mscompress osd " +
    "plg prf prg printerexport rdp reg scf search-ms searchconnector-ms settingcontent-ms theme themepack udl url " +
    "vsmacros vsw webloc webpnp website xnk",
  "programs in documents": "ade adp iqy mad maf mag mam maq mau mav maw mda mde mdt mdw mdz ops slk xla xlam",
  "disk images": "img iso udf vhd vhdx vmdk wim",
};

/** Patterns of names. */
export const RISKY_NAMES: readonly string[] = Object.values(ENDINGS)
  .flatMap((endings) => endings.split(" "))
  .map((ending) => `*.${ending}`)
  .toSorted();

/** The types of such files, as file-type names them. */
export const RISKY_TYPES: readonly string[] = [
  "application/java-vm",
  "application/vnd.android.package-archive",
  "application/vnd.ms-htmlhelp",
  "application/x-apple-diskimage",
  "application/x-elf",
  "application/x-iso9660-image",
  "application/x-mach-binary",
  "application/x-ms-regedit",
  "application/x-ms-shortcut",
  "application/x-msdownload",
];
