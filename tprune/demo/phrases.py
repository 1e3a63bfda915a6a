"""English sentences about numbers, times, dates and prices, each with its one exact German translation.

The numerals come from num2words; the grammar around them (gender, case, separable verbs, word order) is written here.
A template names its slots; a slot is filled with a `Phrase`, one of whose forms each language picks.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from string import Formatter

from tprune.base import extras

num2words = extras.load("num2words", "demo", "the demo").num2words


@dataclass(frozen=True)
class Phrase:
    """One meaning: its English text, and the German nominative, accusative and dative (equal where not given)."""

    en: str
    nom: str
    acc: str = ""
    dat: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "acc", self.acc or self.nom)
        object.__setattr__(self, "dat", self.dat or self.nom)


@dataclass(frozen=True)
class Noun:
    """A noun: singular and plural in both languages, and the German gender ("m", "f" or "n")."""

    en: str
    de: str
    gender: str
    en_plural: str
    de_plural: str


THE = {"m": ("der", "den", "dem"), "f": ("die", "die", "der"), "n": ("das", "das", "dem")}
A = {"m": ("ein", "einen", "einem"), "f": ("eine", "eine", "einer"), "n": ("ein", "ein", "einem")}
# Endings of an adjective after "der" and after "ein": nominative, accusative, dative.
WEAK = {"m": ("e", "en", "en"), "f": ("e", "e", "en"), "n": ("e", "e", "en")}
MIXED = {"m": ("er", "en", "en"), "f": ("e", "e", "en"), "n": ("es", "es", "en")}

ADJECTIVES = (("red", "rot"), ("old", "alt"), ("new", "neu"), ("small", "klein"), ("big", "groß"), ("green", "grün"))
THINGS = (
    Noun("table", "Tisch", "m", "tables", "Tische"),
    Noun("chair", "Stuhl", "m", "chairs", "Stühle"),
    Noun("coat", "Mantel", "m", "coats", "Mäntel"),
    Noun("ball", "Ball", "m", "balls", "Bälle"),
    Noun("lamp", "Lampe", "f", "lamps", "Lampen"),
    Noun("clock", "Uhr", "f", "clocks", "Uhren"),
    Noun("bag", "Tasche", "f", "bags", "Taschen"),
    Noun("cup", "Tasse", "f", "cups", "Tassen"),
    Noun("book", "Buch", "n", "books", "Bücher"),
    Noun("picture", "Bild", "n", "pictures", "Bilder"),
    Noun("bicycle", "Fahrrad", "n", "bicycles", "Fahrräder"),
    Noun("shirt", "Hemd", "n", "shirts", "Hemden"),
)
VEHICLES = (Phrase("the train", "der Zug"), Phrase("the bus", "der Bus"), Phrase("the ferry", "die Fähre"))
CITIES = (
    Phrase("Hamburg", "Hamburg"),
    Phrase("Kiel", "Kiel"),
    Phrase("Bremen", "Bremen"),
    Phrase("Rostock", "Rostock"),
    Phrase("Stockholm", "Stockholm"),
    Phrase("Copenhagen", "Kopenhagen"),
    Phrase("Gothenburg", "Göteborg"),
)
SHOPS = (
    Phrase("the bakery", "die Bäckerei"),
    Phrase("the museum", "das Museum"),
    Phrase("the bank", "die Bank"),
    Phrase("the supermarket", "der Supermarkt"),
    Phrase("the library", "die Bibliothek"),
)
EVENTS = (
    Phrase("the meeting", "die Besprechung"),
    Phrase("the concert", "das Konzert"),
    Phrase("the film", "der Film"),
    Phrase("the course", "der Kurs"),
    Phrase("the party", "die Feier"),
)
PEOPLE = (
    Phrase("my brother", "mein Bruder"),
    Phrase("my sister", "meine Schwester"),
    Phrase("her father", "ihr Vater"),
    Phrase("his grandmother", "seine Großmutter"),
    Phrase("our neighbour", "unser Nachbar"),
    Phrase("the teacher", "der Lehrer"),
)
PLACES = (
    Phrase("in the garden", "im Garten"),
    Phrase("in the kitchen", "in der Küche"),
    Phrase("on the roof", "auf dem Dach"),
    Phrase("in the car", "im Auto"),
    Phrase("behind the house", "hinter dem Haus"),
)
WEEKDAYS = tuple(
    Phrase(en, de)
    for en, de in (
        ("Monday", "Montag"),
        ("Tuesday", "Dienstag"),
        ("Wednesday", "Mittwoch"),
        ("Thursday", "Donnerstag"),
        ("Friday", "Freitag"),
        ("Saturday", "Samstag"),
        ("Sunday", "Sonntag"),
    )
)
MONTHS = (
    ("January", "Januar", 31),
    ("February", "Februar", 28),
    ("March", "März", 31),
    ("April", "April", 30),
    ("May", "Mai", 31),
    ("June", "Juni", 30),
    ("July", "Juli", 31),
    ("August", "August", 31),
    ("September", "September", 30),
    ("October", "Oktober", 31),
    ("November", "November", 30),
    ("December", "Dezember", 31),
)

# (English, German, share of the corpus); a slot is named after the maker that fills it, with a digit where it recurs.
TEMPLATES = (
    ("{vehicle.en} leaves at {time.en}", "{vehicle.nom} fährt um {time.nom} ab", 2),
    ("{vehicle.en} to {city.en} leaves at {time.en}", "{vehicle.nom} nach {city.nom} fährt um {time.nom} ab", 3),
    ("{vehicle.en} from {city.en} arrives at {time.en}", "{vehicle.nom} aus {city.nom} kommt um {time.nom} an", 3),
    (
        "on {weekday.en} {vehicle.en} to {city.en} leaves at {time.en}",
        "am {weekday.nom} fährt {vehicle.nom} nach {city.nom} um {time.nom} ab",
        3,
    ),
    ("{shop.en} opens at {time.en} on {weekday.en}", "{shop.nom} öffnet am {weekday.nom} um {time.nom}", 3),
    ("{shop.en} closes at {time.en}", "{shop.nom} schließt um {time.nom}", 2),
    ("{event.en} on {weekday.en} begins at {time.en}", "{event.nom} am {weekday.nom} beginnt um {time.nom}", 3),
    ("{event.en} begins on {date.en}", "{event.nom} beginnt am {date.dat}", 2),
    ("{event.en} is on {weekday.en}, {date.en}", "{event.nom} ist am {weekday.nom}, dem {date.dat}", 3),
    ("{person.en} arrives on {date.en} at {time.en}", "{person.nom} kommt am {date.dat} um {time.nom} an", 3),
    ("{person.en} was born in {year.en}", "{person.nom} wurde im Jahr {year.nom} geboren", 3),
    (
        "{person.en} was born on {date.en} {year.en}",
        "{person.nom} wurde am {date.dat} {year.nom} geboren",
        3,
    ),
    ("{person.en} is {age.en} old", "{person.nom} ist {age.nom} alt", 2),
    ("{person.en} celebrates a {ordinal.en} birthday", "{person.nom} feiert einen {ordinal.dat} Geburtstag", 2),
    ("{person.en} lives on the {ordinal.en} floor", "{person.nom} wohnt im {ordinal.dat} Stock", 2),
    ("it is the {ordinal.en} house on the left", "es ist das {ordinal.nom} Haus auf der linken Seite", 1),
    ("{the_thing.en} costs {price.en}", "{the_thing.nom} kostet {price.acc}", 5),
    ("{person.en} pays {price.en} for {a_thing.en}", "{person.nom} bezahlt {price.acc} für {a_thing.acc}", 5),
    ("{person.en} buys {things.en} for {price.en}", "{person.nom} kauft {things.acc} für {price.acc}", 5),
    ("there are {things.en} {place.en}", "{place.nom} sind {things.nom}", 3),
    ("there is {a_thing.en} {place.en}", "{place.nom} ist {a_thing.nom}", 2),
    (
        "{person.en} finds {a_thing.en} beside {the_thing.en}",
        "{person.nom} findet {a_thing.acc} neben {the_thing.dat}",
        3,
    ),
    ("{sum.en}", "{sum.nom}", 3),
    ("the number is {number.en}", "die Zahl ist {number.nom}", 3),
    ("the village is {distance.en} away", "das Dorf ist {distance.nom} entfernt", 2),
    ("{city.en} is {distance.en} from {city2.en}", "{city.nom} liegt {distance.nom} von {city2.nom} entfernt", 2),
    ("it is {degrees.en} in {city.en}", "in {city.nom} sind es {degrees.nom}", 2),
)


def sentence_pairs(seed: int) -> Iterator[tuple[str, str]]:
    """Yield (English, German) sentences without end, the same ones for the same seed; they may repeat."""
    chance = random.Random(seed)
    weights = [share for _, _, share in TEMPLATES]
    while True:
        english, german, _ = chance.choices(TEMPLATES, weights)[0]
        phrases = _fill(english, chance)
        yield _sentence(english.format(**phrases)), _sentence(german.format(**phrases))


def _fill(template: str, chance: random.Random) -> dict[str, Phrase]:
    """Return a phrase for every slot of a template; two slots of one kind differ."""
    phrases: dict[str, Phrase] = {}
    for _, field, _, _ in Formatter().parse(template):
        name = (field or "").partition(".")[0]
        if not name or name in phrases:
            continue
        phrase = MAKERS[name.rstrip("0123456789")](chance)
        while phrase in phrases.values():
            phrase = MAKERS[name.rstrip("0123456789")](chance)
        phrases[name] = phrase
    return phrases


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


@cache
def cardinal(number: int) -> Phrase:
    """Return a whole number from zero to 999,999 in words."""
    return Phrase(num2words(number, lang="en").replace(",", ""), num2words(number, lang="de"))


@cache
def ordinal(number: int) -> Phrase:
    """Return an ordinal number as it stands after a German article: "dritte", accusative and dative "dritten"."""
    german = num2words(number, lang="de", to="ordinal")
    return Phrase(num2words(number, lang="en", to="ordinal"), german, f"{german}n", f"{german}n")


def clock(hour: int, minute: int) -> Phrase:
    """Return a time of day as it is spoken; `hour` 1 to 12, `minute` a multiple of 5 below 60."""
    this, following = cardinal(hour), cardinal(hour % 12 + 1)
    if minute == 0:
        return Phrase(f"{this.en} o'clock", "ein Uhr" if hour == 1 else f"{this.nom} Uhr")
    if minute == 30:
        return Phrase(f"half past {this.en}", f"halb {following.nom}")
    past = minute < 30
    distance = minute if past else 60 - minute
    words = Phrase("quarter", "Viertel") if distance == 15 else cardinal(distance)
    english = f"{words.en} past {this.en}" if past else f"{words.en} to {following.en}"
    if distance == 25:  # German counts from the half hour: five before, five after
        return Phrase(english, f"fünf {'vor' if past else 'nach'} halb {following.nom}")
    return Phrase(english, f"{words.nom} nach {this.nom}" if past else f"{words.nom} vor {following.nom}")


def date(day: int, month: int) -> Phrase:
    """Return a day of the year, German without its article; `day` and `month` count from 1."""
    english, german, _ = MONTHS[month - 1]
    words = ordinal(day)
    return Phrase(f"the {words.en} of {english}", f"{words.nom} {german}", "", f"{words.dat} {german}")


def euros(amount: int, cents: int = 0) -> Phrase:
    """Return a price; neither number may end in ...01 beyond one itself (German would have to inflect it)."""
    whole = Phrase("one euro", "ein Euro", "einen Euro") if amount == 1 else counted(amount, "euros", "Euro")
    if not cents:
        return whole
    rest = counted(cents, "cents", "Cent")
    return Phrase(f"{whole.en} and {rest.en}", f"{whole.nom} und {rest.nom}", f"{whole.acc} und {rest.nom}")


def counted(number: int, english: str, german: str) -> Phrase:
    """Return a number greater than one and what it counts, in plurals that do not change with the German case."""
    words = cardinal(number)
    return Phrase(f"{words.en} {english}", f"{words.nom} {german}")


def noun_phrase(noun: Noun, adjective: tuple[str, str] | None, *, definite: bool) -> Phrase:
    """Return a singular noun with its article, and perhaps an adjective, in all three cases."""
    articles, endings = (THE, WEAK) if definite else (A, MIXED)
    english, german = adjective or ("", "")
    words = f"{english} {noun.en}".strip()
    article = "the" if definite else "an" if words[0] in "aeiou" else "a"
    nom, acc, dat = (
        f"{word} {german + ending if german else ''} {noun.de}".replace("  ", " ")
        for word, ending in zip(articles[noun.gender], endings[noun.gender], strict=True)
    )
    return Phrase(f"{article} {words}", nom, acc, dat)


def plural_phrase(noun: Noun, adjective: tuple[str, str] | None, number: int) -> Phrase:
    """Return `number` > 1 of a noun, perhaps with an adjective; nominative and accusative are the same."""
    english, german = (f"{adjective[0]} ", f"{adjective[1]}e ") if adjective else ("", "")
    return counted(number, english + noun.en_plural, german + noun.de_plural)


def _adjective(chance: random.Random) -> tuple[str, str] | None:
    return chance.choice(ADJECTIVES) if chance.random() < 0.5 else None


def _size(chance: random.Random, digits: int) -> int:
    """Return a number from 2 of up to `digits` digits, each length equally likely, that German need not inflect."""
    while True:
        number = chance.randrange(10 ** chance.randint(1, digits))
        if number > 1 and number % 100 != 1:
            return number


def _price(chance: random.Random) -> Phrase:
    amount = 1 if chance.random() < 0.05 else _size(chance, 4)
    return euros(amount, _size(chance, 2) if amount < 100 and chance.random() < 0.5 else 0)


def _date(chance: random.Random) -> Phrase:
    month = chance.randint(1, 12)
    return date(chance.randint(1, MONTHS[month - 1][2]), month)


def _year(chance: random.Random) -> Phrase:
    number = chance.randint(1800, 2030)
    return Phrase(num2words(number, lang="en", to="year"), num2words(number, lang="de", to="year"))


def _sum(chance: random.Random) -> Phrase:
    first, second = chance.randint(1, 99), chance.randint(1, 99)
    if chance.random() < 0.5:
        first, second, sign = first + second, second, Phrase("minus", "minus")
        result = first - second
    else:
        sign, result = Phrase("plus", "plus"), first + second
    a, b, c = cardinal(first), cardinal(second), cardinal(result)
    return Phrase(f"{a.en} {sign.en} {b.en} is {c.en}", f"{a.nom} {sign.nom} {b.nom} ist {c.nom}")


def _degrees(chance: random.Random) -> Phrase:
    text, minus = counted(chance.randint(2, 40), "degrees", "Grad"), "minus " if chance.random() < 0.4 else ""
    return Phrase(minus + text.en, minus + text.nom)


MAKERS: dict[str, Callable[[random.Random], Phrase]] = {
    "a_thing": lambda chance: noun_phrase(chance.choice(THINGS), _adjective(chance), definite=False),
    "age": lambda chance: counted(chance.randint(2, 99), "years", "Jahre"),
    "city": lambda chance: chance.choice(CITIES),
    "date": _date,
    "degrees": _degrees,
    "distance": lambda chance: counted(_size(chance, 3), "kilometres", "Kilometer"),
    "event": lambda chance: chance.choice(EVENTS),
    "number": lambda chance: cardinal(chance.randrange(10 ** chance.randint(1, 5))),
    "ordinal": lambda chance: ordinal(chance.randint(1, 120)),
    "person": lambda chance: chance.choice(PEOPLE),
    "place": lambda chance: chance.choice(PLACES),
    "price": _price,
    "shop": lambda chance: chance.choice(SHOPS),
    "sum": _sum,
    "the_thing": lambda chance: noun_phrase(chance.choice(THINGS), _adjective(chance), definite=True),
    "things": lambda chance: plural_phrase(chance.choice(THINGS), _adjective(chance), _size(chance, 3)),
    "time": lambda chance: clock(chance.randint(1, 12), chance.randrange(0, 60, 5)),
    "vehicle": lambda chance: chance.choice(VEHICLES),
    "weekday": lambda chance: chance.choice(WEEKDAYS),
    "year": _year,
}
