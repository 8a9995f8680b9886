#!/bin/sh
# A real Slurm on this one machine: controller, node and munge of its own, with two GPUs that are only device files.
#
#   scripts/slurm-local.sh start [FOLDER]   starts it and prints the SLURM_CONF to use
#   scripts/slurm-local.sh stop  [FOLDER]   ends its jobs and its daemons
#
# Needs root (slurmd starts jobs) and Debian's packages: apt-get install slurmctld slurmd slurm-client munge
# It touches nothing outside FOLDER and leaves a Slurm of the machine's own alone: other ports, other munge socket.
set -eu

action=${1:-}
folder=${2:-/run/glasshouse-slurm}
port=${GLASSHOUSE_SLURM_PORT:-16817}
PATH=$PATH:/usr/sbin:/sbin
export SLURM_CONF="$folder/slurm.conf"

need() {
    command -v "$1" >/dev/null || { echo "slurm-local: $1 is not installed: apt-get install $2" >&2; exit 69; }
}

end() {
    [ -f "$folder/$1.pid" ] || return 0
    pid=$(cat "$folder/$1.pid")
    # The id may be another process's by now.
    [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$1" ] || return 0
    kill "$pid" 2>/dev/null || return 0
    for _ in $(seq 100); do
        [ -d "/proc/$pid" ] || return 0
        sleep 0.1
    done
    kill -9 "$pid" 2>/dev/null || true
}

stop() {
    [ -f "$SLURM_CONF" ] || return 0
    scancel --quiet --user=root 2>/dev/null || true
    for _ in $(seq 50); do
        [ -n "$(squeue --noheader 2>/dev/null)" ] || break
        sleep 0.2
    done
    end slurmd
    end slurmctld
    end munged
    rm -rf "$folder"
}

start() {
    [ "$(id -u)" = 0 ] || { echo "slurm-local: must be root" >&2; exit 77; }
    need slurmctld slurmctld
    need slurmd slurmd
    need sbatch slurm-client
    need munged munge
    stop
    mkdir -p "$folder/state" "$folder/spool" "$folder/log" "$folder/munge"
    chmod 755 "$folder"
    chmod 700 "$folder/munge"

    # Two GPUs of which Slurm only wants the device file; 1:3 is /dev/null.
    for gpu in 0 1; do
        mknod "$folder/gpu$gpu" c 1 3 2>/dev/null || : >"$folder/gpu$gpu"
    done
    dd if=/dev/urandom of="$folder/munge/key" bs=1024 count=1 2>/dev/null
    chmod 600 "$folder/munge/key"
    munged --key-file="$folder/munge/key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
        --log-file="$folder/munge/log" --seed-file="$folder/munge/seed" --force 2>"$folder/log/munged"

    cat >"$SLURM_CONF" <<CONF
ClusterName=glasshouse
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/log/slurmctld
SlurmdLogFile=$folder/log/slurmd
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,sched_min_interval=100000
GresTypes=gpu
KillWait=10
MinJobAge=300
ReturnToService=2
SlurmdParameters=config_overrides
NodeName=localhost NodeAddr=127.0.0.1 CPUs=4 RealMemory=1000 Gres=gpu:2 State=UNKNOWN
PartitionName=gpu Nodes=localhost Default=YES MaxTime=INFINITE State=UP
CONF
    echo "Name=gpu File=$folder/gpu[0-1]" >"$folder/gres.conf"
    printf 'CgroupAutomount=no\nConstrainCores=no\nConstrainDevices=no\n' >"$folder/cgroup.conf"

    slurmctld
    slurmd
    for _ in $(seq 150); do
        if [ "$(sinfo --noheader --format=%t 2>/dev/null)" = idle ]; then
            echo "SLURM_CONF=$SLURM_CONF"
            return
        fi
        sleep 0.2
    done
    echo "slurm-local: the node does not come up; see $folder/log" >&2
    tail -n 5 "$folder/log/"* >&2 || true
    exit 75
}

case $action in
start) start ;;
stop) stop ;;
*) echo "usage: $0 start|stop [FOLDER]" >&2; exit 64 ;;
esac
