# shellcheck shell=bash
# Services of the packages under systemd, which runs in a namespace of its own: the guests' root has a process 1, and no
# units of Debian. Expects the installed tree in ./root.
set -eu

cp -a root/. /
cp exchange /usr/local/bin
echo kvm:x:107: >>/etc/group
mkdir -p /etc/systemd/system
for target in default sysinit basic sockets shutdown; do
  printf '[Unit]\nDescription=%s\nDefaultDependencies=no\n' "$target" >"/etc/systemd/system/$target.target"
done
env -i container=test PATH="$PATH" unshare --pid --fork --mount --mount-proc \
  /usr/lib/systemd/systemd --system --log-target=console >/tmp/systemd.log 2>&1 &

inside() { nsenter --target "$systemd" --mount --pid "$@"; }
tries=0
until systemd=$(pgrep -o -x systemd) && inside systemctl is-system-running; do
  ((tries++ < 60)) || exit
  sleep 0.5
done >/dev/null 2>&1

run=/run/vhost-nic/lan
exchange() { inside exchange "$run/a.sock" "$run/b.sock"; }
show() { inside systemctl show --property "$1" --value "$2"; }

echo "# verify"
inside systemd-analyze verify --man=no vhost-{nic,ism}@lan.{socket,service}
inside systemctl enable --now vhost-nic@lan.socket vhost-ism@lan.socket 2>&1
stat -c '%U:%G %a %n' "$run"/*.sock /run/vhost-ism/lan/a.sock

echo "# the first connection starts the daemon"
show ActiveState vhost-nic@lan.service
exchange
show ActiveState vhost-nic@lan.service
inside ps -o user= -C vhost-nic | grep -c -v root

echo "# a daemon that stops leaves the sockets to the next"
inside systemctl stop vhost-nic@lan.service
show Result vhost-nic@lan.service
exchange

echo "# a daemon that dies is started again"
inside systemctl kill --signal=KILL vhost-nic@lan.service
tries=0
until [[ $(show NRestarts vhost-nic@lan.service) == 1 ]]; do ((tries++ < 60)); sleep 0.5; done
exchange

echo "# options of an instance"
echo "OPTIONS=\"--guest path=/run/vhost-nic/other/a.sock,id=connectx-7 --recordable\"" >/etc/default/vhost-nic-other
run=/run/vhost-nic/other
inside systemctl start vhost-nic@other.service
exchange
inside vhost-nic ctl --control-socket "$run/operator/control.sock" record a a.record
exchange
[[ -s /var/lib/private/vhost-nic/other/a.record ]] && echo recorded

echo "# the other daemon"
inside systemctl start vhost-ism@lan.service
inside vhost-ism ctl --control-socket /run/vhost-ism/lan/operator/control.sock objects >/dev/null
show ActiveState vhost-ism@lan.service

echo "# beside the units"
for name in vhost-nic vhost-ism; do
  bash -c ". /usr/share/bash-completion/completions/$name; complete -p $name" >/dev/null
  gzip -t /usr/share/man/man1/"$name"*.1.gz
done
inside systemd-analyze security --no-pager vhost-nic@lan.service | tail -n 1
inside systemctl stop vhost-{nic,ism}@lan.{socket,service} vhost-nic@other.{socket,service}
find /run/vhost-nic /run/vhost-ism -type s | wc -l
