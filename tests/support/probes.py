"""Made-up output of the probe on several kinds of devices, in the format of Android's sources."""

from __future__ import annotations

# Four little, two middle and two big cores; everything is readable.
WHOLE = """@@properties
ro.product.manufacturer=Google
ro.product.model=Pixel 6
ro.soc.manufacturer=Google
ro.soc.model=GS101
ro.board.platform=gs101
ro.hardware=oriole
ro.build.version.release=14
ro.build.version.sdk=34
ro.product.cpu.abilist=arm64-v8a,armeabi-v7a,armeabi
ro.product.cpu.abi=arm64-v8a
ro.kernel.qemu=
ro.boot.qemu=0
@@kernel
Linux localhost 5.10.157-android13 #1 SMP PREEMPT aarch64 Toybox
@@memory
MemTotal:        7721000 kB
@@online
0-7
@@allowed
Cpus_allowed_list:	0-7
@@cpus
0 top=1803000 size=160 governor=sched_pixel
1 top=1803000 size=160 governor=sched_pixel
2 top=1803000 size=160 governor=sched_pixel
3 top=1803000 size=160 governor=sched_pixel
4 top=2253000 size=498 governor=sched_pixel
5 top=2253000 size=498 governor=sched_pixel
6 top=2802000 size=1024 governor=sched_pixel
7 top=2802000 size=1024 governor=sched_pixel
@@space
Filesystem       1K-blocks     Used Available Use% Mounted on
/dev/block/dm-44 115249236 41231480  73869900  36% /data
@@load
2.15 1.98 1.50 3/4100 12345
@@frequencies
0 now=300000 cap=1803000
6 now=500000 cap=2802000
7 now= cap=2802000
@@zones
BIG 52000
LITTLE 47
skin_therm1 36500
skin_therm1 36900
vendor zone 31250
broken
@@thermal
IsStatusOverride: false
ThermalEventListeners:
	callbacks: 2
Thermal Status: 0
Cached temperatures:
	Temperature{mValue=39.5, mType=3, mName=VIRTUAL-SKIN, mStatus=0}
HAL Ready: true
Current temperatures from HAL:
	Temperature{mValue=47.0, mType=0, mName=BIG, mStatus=0}
	Temperature{mValue=35.25, mType=3, mName=VIRTUAL-SKIN, mStatus=0}
	Temperature{mValue=NaN, mType=3, mName=OTHER-SKIN, mStatus=0}
Temperature static thresholds from HAL:
	TemperatureThreshold{mType=3, mName=VIRTUAL-SKIN, mHotThrottlingThresholds=[NaN, 39.0]}
@@battery
Current Battery Service state:
  AC powered: false
  USB powered: true
  Wireless powered: false
  Max charging current: 500000
  status: 2
  present: true
  level: 42
  scale: 50
  voltage: 4155
  temperature: 271
@@screen
  mWakefulness=Awake
@@end
"""

# A vendor that hides temperatures and capacities, keeps shells off the fastest core and does not report its SoC.
SHY = """@@properties
ro.product.manufacturer=samsung
ro.product.model=SM-G991B
ro.soc.manufacturer=
ro.soc.model=
ro.board.platform=universal2100
ro.hardware=exynos2100
ro.build.version.release=9
ro.build.version.sdk=28
ro.product.cpu.abilist=arm64-v8a
@@kernel
Linux localhost 4.14
@@online
0-2,7
@@allowed
Cpus_allowed_list:	0-6
@@cpus
0 top=2210000 size= governor=
1 top=2210000 size= governor=
2 top=2808000 size= governor=
7 top=2912000 size= governor=
@@space
@@load
@@frequencies
@@zones
@@thermal
Can't find service: thermalservice
@@battery
  level: 12
  temperature: 305
@@screen
  mWakefulness=Dozing
@@end
"""

# Android's own emulator on a PC.
EMULATOR = """@@properties
ro.product.manufacturer=Google
ro.product.model=sdk_gphone64_x86_64
ro.hardware=ranchu
ro.build.version.release=13
ro.build.version.sdk=33
ro.product.cpu.abilist=x86_64,arm64-v8a
ro.kernel.qemu=1
@@online
0-3
@@cpus
0 top= size= governor=
1 top= size= governor=
2 top= size= governor=
3 top= size= governor=
@@end
"""
