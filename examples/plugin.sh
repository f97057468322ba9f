#!/usr/bin/env bash
# A topic of your own: write it, install it, train, stop and resume, use it, break it, see why, and
# remove it. Everything happens in a new folder:
#
#     examples/plugin.sh [FOLDER]
#
# INSTALL_OPTIONS goes to the installer; without a network, and with hatchling installed, set
# INSTALL_OPTIONS="--no-build-isolation --no-deps".
set -euo pipefail

work=${1:-$(mktemp -d)}
mkdir -p "$work"
cd "$work"
read -ra options <<<"${INSTALL_OPTIONS:-}"

show() { # print a command, then run it
    printf '\n$ %s\n' "$*"
    "$@"
}

fails() { # run a command that must end with the exit code in $1
    local expected=$1 code=0
    shift
    show "$@" || code=$?
    echo "(exit code $code)"
    [ "$code" -eq "$expected" ] || { echo "expected exit code $expected" >&2; exit 1; }
}

echo "# a new topic, in $work"
show dltool plugin new weather
show dltool plugin install --editable ./dltool-weather --yes ${options[@]+-- "${options[@]}"}
show dltool plugin check weather
show dltool weather --help

echo
echo "# train; Ctrl-C after the first checkpoint; go on where it stopped"
run=runs/weather/first
echo "\$ dltool weather train --epochs 600 --save-every 0.2 --out $run"
dltool weather train --epochs 600 --save-every 0.2 --device cpu --out $run 2>train.log &
training=$!
until ls $run/checkpoints/step-* >/dev/null 2>&1; do
    kill -0 $training || { cat train.log >&2; exit 1; }
    sleep 0.05
done
kill -INT $training
code=0
wait $training || code=$?
tail -n 1 train.log
echo "(exit code $code)"
[ "$code" -eq 130 ]
show dltool weather train --resume $run 2>resume.log
head -n 4 resume.log

echo
echo "# use it"
show dltool weather predict $run $run/test-rows.csv | head -n 5
show dltool weather info $run
show dltool plugin freeze --out plugins.lock

echo
echo "# break it, and see the cause: in the help, in a call, in the check"
source=dltool-weather/dltool_weather/cli.py
cp $source whole.py
echo "import a_package_that_is_not_there" >>$source
show dltool --help | grep -A 2 weather
fails 4 dltool weather train
fails 6 dltool plugin check weather
show dltool gpu info >/dev/null
cp whole.py $source
show dltool plugin check weather

echo
echo "# leave it out for a while, remove it, bring it back by the lock file, remove it for good"
show dltool plugin disable weather
fails 4 dltool weather info $run
show dltool plugin enable weather
show dltool plugin uninstall weather --yes
fails 2 dltool weather info $run
show dltool plugin sync plugins.lock --yes ${options[@]+-- "${options[@]}"}
show dltool plugin uninstall dltool-weather --yes
show dltool plugin list
