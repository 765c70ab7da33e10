# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""The scripts that run inside Windows, and how values get into them.

They are for PowerShell 2.0 (Windows 7, Server 2008 R2) to 5.1, which every later Windows has. So there is no
ConvertTo-Json, no Get-CimInstance, and Storage cmdlets only behind a test. They recognise things by numbers, registry
values and identifiers, because nearly every text of Windows is translated.

Each script is given the path for its result. It removes its own file, waits for others of its kind, and puts its whole
result, or the reason why it failed, in place at once; see ``_pve/agent.py`` for what that is good for.
"""

from __future__ import annotations

import typing as t
from collections.abc import Mapping, Sequence

if t.TYPE_CHECKING:
    Value = t.Union[str, int, bool, Sequence[str], Sequence[int], Mapping[str, str]]  # noqa: UP007 - for ansible-test

_QUOTES = "'\u2018\u2019\u201a\u201b"  # PowerShell takes all of them for one

_HEAD = r"""
param([string]$Script, [string]$Result)
Remove-Item -LiteralPath $Script
$ErrorActionPreference = 'Stop'
"""

_TOOLS = r"""
function Quote([string]$text) {
    $out = New-Object Text.StringBuilder
    foreach ($char in $text.ToCharArray()) {
        $code = [int]$char
        if ($code -lt 32 -or $code -gt 126 -or $code -eq 34 -or $code -eq 92) {
            [void]$out.Append('\u' + $code.ToString('x4'))
        } else {
            [void]$out.Append($char)
        }
    }
    return '"' + $out.ToString() + '"'
}

# JSON of dictionaries, lists, texts, numbers, booleans and null.
function Format-Json($value) {
    if ($null -eq $value) { return 'null' }
    if ($value -is [bool]) { return $value.ToString().ToLowerInvariant() }
    if ($value -is [string] -or $value -is [guid]) { return Quote $value }
    if ($value -is [Collections.IDictionary]) {
        $pairs = @($value.Keys | ForEach-Object { (Quote $_) + ':' + (Format-Json $value[$_]) })
        return '{' + [string]::Join(',', $pairs) + '}'
    }
    if ($value -is [Collections.IEnumerable]) {
        $items = @($value | ForEach-Object { Format-Json $_ })
        return '[' + [string]::Join(',', $items) + ']'
    }
    return [Convert]::ToString($value, [Globalization.CultureInfo]::InvariantCulture)
}

# A registry value below HKEY_LOCAL_MACHINE, null if there is none.
function Read-Value([string]$key, [string]$name) {
    $item = Get-Item -LiteralPath "HKLM:\$key" -ErrorAction SilentlyContinue
    if ($item) { return $item.GetValue($name) }
    return $null
}

# All instances of a WMI class, none if the class does not exist. (PowerShell 2.0 loops once over null.)
function Find-All([string]$class, [string]$namespace = 'root\cimv2') {
    return @(Get-WmiObject -Namespace $namespace -Class $class -ErrorAction SilentlyContinue | Where-Object { $_ })
}

# The identifier in a WMI reference: \\PC\root\cimv2:Win32_PnPEntity.DeviceID="PCI\\VEN_1AF4" -> PCI\VEN_1AF4
function Read-Reference([string]$reference) {
    $start = $reference.IndexOf('="') + 2
    return $reference.Substring($start, $reference.Length - $start - 1).Replace('\\', '\')
}

$services = 'SYSTEM\CurrentControlSet\Services'
$control = 'SYSTEM\CurrentControlSet\Control'
"""

_TAIL = r"""
$mutex = New-Object Threading.Mutex($false, 'Global\diskwright')
try { [void]$mutex.WaitOne() } catch [Threading.AbandonedMutexException] { }
try {
    try { $answer = Main } catch { $answer = @{ error = "$_" } }
    [IO.File]::WriteAllText("$Result.new", (Format-Json $answer))
    Move-Item -LiteralPath "$Result.new" -Destination $Result -Force
} finally {
    $mutex.ReleaseMutex()
}
"""

# What there is. $drivers: name -> service;stem;device ids. $controllers: names of services.
_GATHER = r"""
function Read-System {
    $nt = 'SOFTWARE\Microsoft\Windows NT\CurrentVersion'
    $servicing = 'HKLM:\SOFTWARE\Microsoft\Windows\CurrentVersion\Component Based Servicing'
    return @{
        product = Read-Value $nt 'ProductName'
        edition = Read-Value $nt 'EditionID'
        build = Read-Value $nt 'CurrentBuildNumber'
        version = Read-Value $nt 'CurrentVersion'
        major = Read-Value $nt 'CurrentMajorVersionNumber'
        minor = Read-Value $nt 'CurrentMinorVersionNumber'
        product_type = Read-Value "$control\ProductOptions" 'ProductType'
        architecture = Read-Value "$control\Session Manager\Environment" 'PROCESSOR_ARCHITECTURE'
        firmware = Read-Value $control 'PEFirmwareType'
        secure_boot = Read-Value "$control\SecureBoot\State" 'UEFISecureBootEnabled'
        start_options = Read-Value $control 'SystemStartOptions'
        powershell = $PSVersionTable.PSVersion.ToString()
        fast_startup = Read-Value "$control\Session Manager\Power" 'HiberbootEnabled'
        san_policy = Read-Value "$services\partmgr\Parameters" 'SanPolicy'
        restart_pending = Test-Path "$servicing\RebootPending"
    }
}

function Read-Service([string]$name) {
    return @{
        start = Read-Value "$services\$name" 'Start'
        start_override = Read-Value "$services\$name\StartOverride" '0'
        devices = Read-Value "$services\$name\Enum" 'Count'
    }
}

# The driver's file: whether it is there, its version, and who signed it.
function Read-Image([string]$stem) {
    $file = "$env:SystemRoot\System32\drivers\$stem.sys"
    if (-not (Test-Path -LiteralPath $file)) { return $null }
    $info = (Get-Item -LiteralPath $file).VersionInfo
    $parts = $info.FileMajorPart, $info.FileMinorPart, $info.FileBuildPart, $info.FilePrivatePart
    $signer = (Get-AuthenticodeSignature $file).SignerCertificate
    return @{ version = [string]::Join('.', $parts); signer = $(if ($signer) { $signer.Subject }) }
}

# The packages in the driver store whose catalogue has the driver's name: oemN.inf -> version.
function Read-Store([string]$stem) {
    $catalogue = "(?im)^\s*CatalogFile[^=]*=\s*$stem\.cat"
    $version = '(?im)^\s*DriverVer\s*=[^,]*,\s*([\d.]+)'
    $found = @{}
    foreach ($inf in @(Get-ChildItem "$env:SystemRoot\INF" -Filter 'oem*.inf' | Where-Object { $_ })) {
        $text = [IO.File]::ReadAllText($inf.FullName)
        if ($text -match $catalogue -and $text -match $version) { $found[$inf.Name] = $matches[1] }
    }
    return $found
}

function Read-Drivers {
    $present = @(Find-All 'Win32_PnPEntity' | ForEach-Object { $_.DeviceID })
    $found = @{}
    foreach ($name in $drivers.Keys) {
        $service, $stem, $ids = $drivers[$name].Split(';')
        $one = Read-Service $service
        $one['service'] = Test-Path "HKLM:\$services\$service"
        $one['image'] = Read-Image $stem
        $one['store'] = Read-Store $stem
        $one['hardware'] = @($present | Where-Object { $_ -match "^PCI\\VEN_1AF4&DEV_($ids)&" }).Count
        $found[$name] = $one
    }
    return $found
}

function Read-Controllers {
    $found = @{}
    foreach ($name in $controllers) {
        if (Test-Path "HKLM:\$services\$name") { $found[$name] = Read-Service $name }
    }
    return $found
}

# Device -> service of the controller that it hangs on.
function Read-Parents {
    $found = @{}
    foreach ($class in 'Win32_SCSIControllerDevice', 'Win32_IDEControllerDevice') {
        foreach ($link in @(Find-All $class)) {
            $parent = Read-Reference $link.Antecedent
            $found[(Read-Reference $link.Dependent)] = Read-Value "SYSTEM\CurrentControlSet\Enum\$parent" 'Service'
        }
    }
    return $found
}

# The number of the disk that Windows is on. Partitions are matched by their names, whatever the language.
function Read-BootDisk {
    $disk = @{}
    foreach ($partition in @(Find-All 'Win32_DiskPartition')) { $disk[$partition.DeviceID] = $partition.DiskIndex }
    foreach ($link in @(Find-All 'Win32_LogicalDiskToPartition')) {
        if ((Read-Reference $link.Dependent) -eq $env:SystemDrive) { return $disk[(Read-Reference $link.Antecedent)] }
    }
    return $null
}

function Read-Disks {
    $parents = Read-Parents
    $modern = @{}
    foreach ($disk in @(Find-All 'MSFT_Disk' 'root\Microsoft\Windows\Storage')) { $modern["$($disk.Number)"] = $disk }
    foreach ($disk in @(Find-All 'Win32_DiskDrive')) {
        $manager = "SYSTEM\CurrentControlSet\Enum\$($disk.PNPDeviceID)\Device Parameters\Partmgr"
        $one = @{
            number = $disk.Index
            service = $parents[$disk.PNPDeviceID]
            size = $disk.Size
            serial = $disk.SerialNumber
            model = $disk.Model
            signature = $disk.Signature
            attributes = Read-Value $manager 'Attributes'
        }
        $more = $modern["$($disk.Index)"]
        if ($more) {
            $one['signature'] = $more.Signature
            $one['guid'] = $more.Guid
            $one['style'] = $more.PartitionStyle
            $one['offline'] = $more.IsOffline
            $one['read_only'] = $more.IsReadOnly
        }
        $one
    }
}

function Read-Volumes {
    foreach ($volume in @(Find-All 'Win32_Volume')) {
        @{
            id = $volume.DeviceID
            letter = $volume.DriveLetter
            label = $volume.Label
            filesystem = $volume.FileSystem
            size = $volume.Capacity
            type = $volume.DriveType
        }
    }
}

# Volumes that BitLocker knows: whether it protects them, and how far it has encrypted them. Null if it can't be told.
function Read-BitLocker {
    try {
        $namespace = 'root\CIMV2\Security\MicrosoftVolumeEncryption'
        $found = @(Get-WmiObject -Namespace $namespace -Class Win32_EncryptableVolume | Where-Object { $_ })
    } catch {
        if ('InvalidNamespace', 'InvalidClass' -contains "$($_.Exception.ErrorCode)") { return ,@() }
        return $null
    }
    $all = @($found | ForEach-Object {
        @{
            volume = $(if ($_.DriveLetter) { $_.DriveLetter } else { $_.DeviceID })
            protection = $_.GetProtectionStatus().ProtectionStatus
            conversion = $_.GetConversionStatus().ConversionStatus
        }
    })
    return ,$all
}

function Read-Media {
    foreach ($disk in @(Find-All 'Win32_LogicalDisk')) {
        if ($disk.DriveType -eq 5 -and $disk.VolumeName) { @{ letter = $disk.DeviceID; label = $disk.VolumeName } }
    }
}

function Main {
    return @{
        system = Read-System
        drivers = Read-Drivers
        controllers = Read-Controllers
        boot_disk = Read-BootDisk
        disks = @(Read-Disks)
        volumes = @(Read-Volumes)
        bitlocker = Read-BitLocker
        media = @(Read-Media)
    }
}
"""

# Puts drivers into the store, and installs them for the devices that are there. $infs: paths of INF files. Windows asks
# nobody about a publisher that it trusts, so each is trusted for the moment of the installation. What pnputil says is
# translated and its exit status differs from release to release: what came of it is seen by looking again.
_STAGE = r"""
function Install-Driver([string]$inf) {
    $certificate = (Get-AuthenticodeSignature ($inf -replace 'inf$', 'cat')).SignerCertificate
    $store = New-Object Security.Cryptography.X509Certificates.X509Store('TrustedPublisher', 'LocalMachine')
    $store.Open('ReadWrite')
    $add = $certificate -and -not $store.Certificates.Contains($certificate)
    try {
        if ($add) { $store.Add($certificate) }
        & "$env:SystemRoot\System32\pnputil.exe" -i -a $inf | Out-Null
        return $LASTEXITCODE
    } finally {
        if ($add) { $store.Remove($certificate) }
        $store.Close()
    }
}

function Main {
    return @{ exits = @($infs | ForEach-Object { Install-Driver $_ }) }
}
"""

# Sets what is to be guarded. Numbers below 0 and empty lists leave things alone. $letters: letter -> volume.
_GUARD = r"""
function Set-Number([string]$key, [string]$name, [int]$value) {
    if (-not (Test-Path "HKLM:\$key")) { New-Item "HKLM:\$key" -Force | Out-Null }
    New-ItemProperty "HKLM:\$key" -Name $name -Value $value -PropertyType DWord -Force | Out-Null
}

function Set-BitLocker([string]$name, [bool]$suspend) {
    $namespace = 'root\CIMV2\Security\MicrosoftVolumeEncryption'
    foreach ($volume in @(Find-All 'Win32_EncryptableVolume' $namespace)) {
        if ($volume.DriveLetter -ne $name -and $volume.DeviceID -ne $name) { continue }
        if (-not $suspend) { $done = $volume.EnableKeyProtectors() }
        elseif ([Environment]::OSVersion.Version -ge [Version]'6.2') { $done = $volume.DisableKeyProtectors($reboots) }
        else { $done = $volume.DisableKeyProtectors() }
        if ($done.ReturnValue -ne 0) { throw "BitLocker on ${name}: error $('0x{0:x8}' -f $done.ReturnValue)" }
    }
}

function Set-Online([int]$number) {
    if (Get-Command Set-Disk -ErrorAction SilentlyContinue) {
        Set-Disk -Number $number -IsOffline $false
        Set-Disk -Number $number -IsReadOnly $false
        return
    }
    $commands = "select disk $number", 'online disk noerr', 'attributes disk clear readonly noerr'
    $commands | & "$env:SystemRoot\System32\diskpart.exe" | Out-Null
}

function Set-Letter([string]$letter, [string]$id) {
    $volumes = @(Find-All 'Win32_Volume')
    foreach ($volume in $volumes) {
        if ($volume.DriveLetter -eq $letter -and $volume.DeviceID -notlike "*{$id}*") {
            $volume.DriveLetter = $null
            [void]$volume.Put()
        }
    }
    foreach ($volume in $volumes) {
        if ($volume.DeviceID -like "*{$id}*") {
            $volume.DriveLetter = $letter
            [void]$volume.Put()
        }
    }
}

function Main {
    if ($san_policy -ge 0) { Set-Number "$services\partmgr\Parameters" 'SanPolicy' $san_policy }
    if ($fast_startup -ge 0) { Set-Number "$control\Session Manager\Power" 'HiberbootEnabled' $fast_startup }
    foreach ($name in $suspend) { Set-BitLocker $name $true }
    foreach ($name in $resume) { Set-BitLocker $name $false }
    foreach ($name in $boot_start) {
        Set-Number "$services\$name" 'Start' 0
        Remove-Item "HKLM:\$services\$name\StartOverride" -Recurse -ErrorAction SilentlyContinue
    }
    foreach ($number in $online) { Set-Online $number }
    foreach ($letter in $letters.Keys) { Set-Letter $letter $letters[$letter] }
    return @{}
}
"""

# What partitions could take. Windows is first told to look how large its disks are now.
_SPACE = r"""
function Read-Partition($partition, $volumes) {
    $number = @{ DiskNumber = $partition.DiskNumber; PartitionNumber = $partition.PartitionNumber }
    $volume = $volumes | Where-Object { $partition.AccessPaths -contains $_.DeviceID }
    try { $maximum = (Get-PartitionSupportedSize @number).SizeMax } catch { $maximum = $null }
    return @{
        disk = $partition.DiskNumber
        number = $partition.PartitionNumber
        offset = $partition.Offset
        size = $partition.Size
        maximum = $maximum
        gpt_type = $partition.GptType
        mbr_type = $partition.MbrType
        letter = $(if ($volume) { $volume.DriveLetter })
        filesystem = $(if ($volume) { $volume.FileSystem })
        filesystem_size = $(if ($volume) { $volume.Capacity })
    }
}

function Main {
    if (-not (Get-Command Get-PartitionSupportedSize -ErrorAction SilentlyContinue)) { return @{ too_old = $true } }
    Update-HostStorageCache
    $storage = 'root\Microsoft\Windows\Storage'
    $disks = @(Find-All 'MSFT_Disk' $storage | ForEach-Object {
        @{
            number = $_.Number
            size = $_.Size
            serial = $_.SerialNumber
            unique_id = $_.UniqueId
            location = $_.Location
            style = $_.PartitionStyle
            offline = $_.IsOffline
            read_only = $_.IsReadOnly
        }
    })
    $volumes = @(Find-All 'Win32_Volume')
    $partitions = @(Find-All 'MSFT_Partition' $storage | ForEach-Object { Read-Partition $_ $volumes })
    return @{ disks = $disks; partitions = $partitions }
}
"""

# Extends partitions. $sizes: disk;partition -> bytes.
_EXTEND = r"""
function Main {
    foreach ($key in $sizes.Keys) {
        $disk, $partition = $key.Split(';')
        Resize-Partition -DiskNumber $disk -PartitionNumber $partition -Size ([uint64]$sizes[$key])
    }
    return @{}
}
"""

_SCRIPTS: t.Final = {
    "gather": (_GATHER, ("drivers", "controllers")),
    "stage": (_STAGE, ("infs",)),
    "guard": (
        _GUARD,
        ("san_policy", "fast_startup", "suspend", "resume", "reboots", "boot_start", "online", "letters"),
    ),
    "space": (_SPACE, ()),
    "extend": (_EXTEND, ("sizes",)),
}


def script(name: str, **values: Value) -> str:
    """A script's text, for PowerShell 2.0 and later.

    :param name: gather, stage, guard, space or extend.
    :param values: its variables, all of them.
    """
    body, variables = _SCRIPTS[name]
    if set(values) != set(variables):
        raise ValueError(f"{name} takes {', '.join(variables) or 'nothing'}")
    assigned = "".join(f"${variable} = {literal(values[variable])}\n" for variable in variables)
    return f"# diskwright: {name}{_HEAD}{assigned}{_TOOLS}{body}{_TAIL}"


def literal(value: Value) -> str:
    """A value as PowerShell writes it, so that it is data and never code."""
    if isinstance(value, bool):
        return "$true" if value else "$false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return "'" + "".join(char * 2 if char in _QUOTES else char for char in value) + "'"
    if isinstance(value, Mapping):
        return "@{" + "; ".join(f"{literal(key)} = {literal(text)}" for key, text in value.items()) + "}"
    return "@(" + ", ".join(literal(item) for item in value) + ")"
