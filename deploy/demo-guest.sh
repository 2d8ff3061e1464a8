#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Makes the demo guest: a small Linux with a shell on its screen and on its first serial port.
#
#   deploy/demo-guest.sh build [DIRECTORY]          makes the files "kernel" and "initramfs" in DIRECTORY
#   deploy/demo-guest.sh xml NAME UUID DIRECTORY    prints libvirt's description of a guest that boots these files
#
# DIRECTORY is .cache/demo-guest in the checkout unless it is given. The kernel is the distribution's own for clouds,
# and the programs are its busybox-static. Both packages are downloaded and unpacked, and never installed. A second
# "build" downloads nothing. It makes the initramfs again when a file of deploy/demo-guest/ has changed.
#
# Why a script of its own: deploy/quickstart.sh and the browser tests start the same guest.

set -u
# shellcheck source=deploy/packages.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/packages.sh"

SOURCE=$PORTHOLE_CHECKOUT/deploy/demo-guest
# Debian's and Ubuntu's metapackages. The VGA text console and the PS/2 keyboard are built into both kernels.
KERNEL_METAPACKAGES=(linux-image-cloud-amd64 linux-image-virtual)
DOWNLOAD_TIMEOUT_S=300
LOCK_TIMEOUT_S=600

usage() {
    sed -n '4,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
}

# find_kernel_package: the name of the package that a metapackage brings the kernel with.
find_kernel_package() {
    local metapackage name
    for metapackage in "${KERNEL_METAPACKAGES[@]}"; do
        name=$(timeout 60 apt-cache depends "$metapackage" 2>/dev/null |
            sed -n 's/^ *|\{0,1\}Depends: \(linux-image-[^ ]*\)$/\1/p' | head -n 1)
        if [ -n "$name" ]; then
            printf '%s\n' "$name"
            return 0
        fi
    done
    return 1
}

# download DIRECTORY: the two packages, as files in DIRECTORY.
download() {
    local kernel
    kernel=$(find_kernel_package) || return 1
    # apt-get would fetch as the user _apt, which may not write here, and would warn of it.
    (cd -- "$1" && timeout "$DOWNLOAD_TIMEOUT_S" apt-get -q -o APT::Sandbox::User=root -o Acquire::Retries=2 \
        -o Acquire::http::Timeout=30 download "$kernel" busybox-static) >&2
}

# fetch DIRECTORY: the kernel and busybox, as "kernel" and "busybox" in DIRECTORY.
fetch() {
    local work=$1/download package
    rm -rf -- "$work"
    mkdir -p -- "$work/root" || return 1
    say "downloading the demo guest's kernel and busybox"
    # A fresh machine has no list of packages, and an old list names packages that the archive has replaced.
    if ! download "$work" 2>"$work/log"; then
        as_root timeout "$DOWNLOAD_TIMEOUT_S" apt-get -q -o DPkg::Lock::Timeout=120 update >"$work/log" 2>&1
        download "$work" 2>>"$work/log" || {
            cat -- "$work/log" >&2
            say "apt-get could not download the packages of the demo guest: one of" \
                "${KERNEL_METAPACKAGES[*]}, and busybox-static"
            return 1
        }
    fi
    for package in "$work"/*.deb; do
        # The kernel's modules are most of its package, and the guest loads none.
        dpkg-deb --fsys-tarfile "$package" |
            tar -x -C "$work/root" --exclude='./lib/modules/*' --exclude='./usr/lib/modules/*' || return 1
    done
    # Ubuntu's kernel may be read by root alone, and QEMU runs as another user.
    install -m 644 -- "$work"/root/boot/vmlinuz-* "$1/kernel.new" || return 1
    install -m 755 -- "$(find "$work/root" -path '*/bin/busybox' -type f)" "$1/busybox" || return 1
    mv -- "$1/kernel.new" "$1/kernel"
    rm -rf -- "$work"
}

# pack DIRECTORY: the initramfs of DIRECTORY/busybox and the files of deploy/demo-guest/.
pack() {
    local root=$1/root busybox=$1/busybox
    rm -rf -- "$root"
    mkdir -p -- "$root"/{bin,dev,etc,proc,root,sys,tmp} || return 1
    install -m 755 -- "$busybox" "$root/bin/busybox" || return 1
    ln -s /bin/busybox "$root/init" || return 1
    install -m 755 -- "$SOURCE/start" "$root/etc" || return 1
    install -m 644 -- "$SOURCE"/{inittab,profile,greeting} "$root/etc" || return 1
    # The host may have no cpio, and this busybox has one.
    (set -o pipefail && cd -- "$root" && find . | sort | "$busybox" cpio -o -H newc -R 0:0 | gzip -n -9) \
        >"$1/initramfs.new" 2>/dev/null || {
        say "busybox could not pack the demo guest's initramfs in $root"
        return 1
    }
    chmod 644 -- "$1/initramfs.new"
    mv -- "$1/initramfs.new" "$1/initramfs"
    rm -rf -- "$root"
}

# inputs DIRECTORY: a line that changes with what the initramfs is made of.
inputs() {
    cat -- "${BASH_SOURCE[0]}" "$SOURCE"/* "$1/busybox" | sha256sum
}

build() {
    local directory=$1
    mkdir -p -- "$directory" || return 1
    # Several quickstarts and tests may want it at once.
    exec 8>"$directory/lock" || return 1
    flock --timeout "$LOCK_TIMEOUT_S" 8 || {
        say "another process has been making the demo guest in $directory for $LOCK_TIMEOUT_S s"
        return 1
    }
    if ! [ -s "$directory/kernel" ]; then
        fetch "$directory" 8>&- || return 1
    fi
    if ! [ -s "$directory/initramfs" ] || [ "$(inputs "$directory")" != "$(cat -- "$directory/inputs" 2>/dev/null)" ]; then
        pack "$directory" || return 1
        inputs "$directory" >"$directory/inputs"
    fi
    exec 8>&-
}

# Idle costs next to nothing: no USB, whose controller is polled, and no disk. The default cache of translated code
# would grow to a large part of the host's memory. QEMU itself takes about 125 MiB beside the guest's memory, and each
# reboot touches more of that memory.
print_xml() {
    cat <<XML
<domain type='qemu'>
  <name>$1</name>
  <uuid>$2</uuid>
  <memory unit='MiB'>112</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>$3/kernel</kernel>
    <initrd>$3/initramfs</initrd>
    <cmdline>console=ttyS0 console=tty0 quiet consoleblank=0 mitigations=off panic=10</cmdline>
  </os>
  <features><acpi/><tcg><tb-cache unit='MiB'>64</tb-cache></tcg></features>
  <devices>
    <controller type='usb' model='none'/>
    <input type='keyboard' bus='ps2'/>
    <serial type='pty'/>
    <console type='pty'/>
    <graphics type='vnc' autoport='yes' listen='127.0.0.1' sharePolicy='ignore'/>
    <video><model type='vga'/></video>
    <memballoon model='none'/>
  </devices>
</domain>
XML
}

case ${1:-} in
    build)
        if [ $# -le 2 ]; then
            build "${2:-$PORTHOLE_CHECKOUT/.cache/demo-guest}"
            exit
        fi
        ;;
    xml)
        if [ $# -eq 4 ]; then
            print_xml "$2" "$3" "$4"
            exit
        fi
        ;;
    -h | --help)
        usage
        exit 0
        ;;
esac
usage >&2
exit 2
