# shellcheck shell=bash
# TCG or KVM. Guests may fail under KVM even though /dev/kvm can be opened, so KVM is used only
# after a trial boot, whose result is cached.

accel_file() {
  local machine kernel
  if kernel_done normal; then kernel=$(kernel_key normal); else kernel=$(stock_key 7.x); fi
  # The cache may be shared between machines.
  machine=$(uname -r; grep -m 1 '^model name' /proc/cpuinfo)
  echo "$CACHE/accel/$(printf '%s %s %s %s' "$kernel" "$(qemu_key)" "$(rootfs_key)" "$machine" | key_of)"
}

# The directory of the kernel that is tried: ours, or Debian's where ours is not built.
accel_kernel() {
  if kernel_done normal; then echo "$(kernel_dir normal)/out"; else stock_dir 7.x; fi
}

accel_detect() {
  local file answer
  # Not cached: checking is cheap, and permissions may change.
  if [[ ! -r /dev/kvm || ! -w /dev/kvm ]]; then
    echo tcg
    return
  fi
  file=$(accel_file)
  if [[ ! -e $file ]]; then
    answer=tcg
    step "trying a guest under KVM (at most 20 s, once)"
    accel_try kvm 20 && answer=kvm
    mkdir -p "$CACHE/accel"
    echo "$answer" | replace "$file"
  fi
  cat "$file"
}

# accel_try ACCEL SECONDS: succeeds if a guest's /init reports on the console in time.
accel_try() {
  local log=$LOGS/accel-$1.log pid end=$((SECONDS + $2)) rc=1 kernel initrd=()
  kernel=$(accel_kernel)
  [[ ! -e $kernel/initrd ]] || initrd=(-initrd "$kernel/initrd")
  mkdir -p "$LOGS"
  : >"$log"
  (exec setpriv --pdeathsig TERM -- "$(qemu_dir)/bin/qemu-system-x86_64" \
    -nodefaults -no-user-config -no-reboot -display none -M q35 -accel "$1" -cpu max -smp 2 -m 512 \
    -kernel "$kernel/bzImage" "${initrd[@]}" \
    -append "root=/dev/vda ro init=/init console=ttyS0 panic=-1 quiet" \
    -drive "if=none,id=root,format=raw,readonly=on,file=$(rootfs_dir)/rootfs.ext4" \
    -device virtio-blk-pci,drive=root -serial "file:$log") </dev/null >"$log.qemu" 2>&1 &
  pid=$!
  while ((SECONDS < end)) && kill -0 "$pid" 2>/dev/null; do
    if grep -aq '^init: .* is up' "$log"; then
      rc=0
      break
    fi
    # QEMU keeps running with a stopped guest.
    grep -aq '^KVM internal error' "$log.qemu" && break
    sleep 0.2
  done
  kill -KILL "$pid" 2>/dev/null || true
  wait "$pid" 2>/dev/null || true
  return $rc
}
