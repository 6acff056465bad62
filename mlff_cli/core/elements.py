"""Chemical elements by atomic number; index 0 is the padding "element" X."""

from __future__ import annotations

from mlff_cli.core.errors import DataError

_TABLE = (
    "X H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se "
    "Br Kr Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy "
    "Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf "
    "Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og"
)
SYMBOLS: tuple[str, ...] = tuple(_TABLE.split())
MAX_Z = 118
_NUMBER = {symbol: z for z, symbol in enumerate(SYMBOLS) if z}


def symbol(z: int) -> str:
    """Symbol of atomic number `z`.

    Raises:
        DataError: `z` is not in 1..118.
    """
    if not 1 <= z <= MAX_Z:
        raise DataError(f"atomic numbers are 1 to {MAX_Z}, found {z}")
    return SYMBOLS[z]


def atomic_number(name: str) -> int:
    """Atomic number of an element symbol (case as usual: 'Cl').

    Raises:
        DataError: no element has that symbol.
    """
    try:
        return _NUMBER[name]
    except KeyError:
        raise DataError(f"unknown element symbol {name!r}", remedy="write it as in 'Cl'") from None
