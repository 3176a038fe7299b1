"""Word lists that the synthetic behavior data is drawn from."""


def _words(text: str) -> list[str]:
    """Return the words of a block of text."""
    return text.split()


def _phrases(text: str) -> list[str]:
    """Return the phrases of a block of text, which commas part."""
    return [" ".join(phrase.split()) for phrase in text.split(",")]


VERBS = _words(
    """
    get find compute lookup fetch search convert estimate count list check calculate apply run
    measure translate classify rank score summarize validate parse schedule book send create update
    delete add subtract multiply divide combine compare predict track plan open close start stop
    read write solve evaluate transform query resolve encode decode sort filter
    """
)
NOUNS = _words(
    """
    weather temperature price stock distance population capital currency recipe route flight hotel
    ticket invoice order customer user account balance document file email message event meeting
    reminder task note song movie book review rating score word number sum product ratio factor
    prime function value index table record city country timezone address phone calendar magic
    secret formula shape area volume length weight speed energy color image text sentence paragraph
    language code package server log report news article joke poem story puzzle quiz answer fact
    quote name date time age tax loan interest rate discount
    """
)
ADJECTIVES = _words(
    """
    current latest average total daily weekly monthly local global nearest fast simple secret magic
    special custom random advanced basic internal
    """
)
THINGS = _words(
    """
    apple river garden mountain coffee winter music school doctor engine bridge forest window market
    planet castle dragon robot ocean desert island kitchen teacher soldier painter farmer rocket
    tiger parrot cat dog horse elephant bicycle guitar piano camera mirror pencil lantern blanket
    bottle basket ladder hammer chess football history science physics biology chemistry poetry
    travel friendship courage kindness patience honesty rain snow thunder sunset breakfast dinner
    bread cheese honey lemon pepper salt sugar butter
    """
)
NAMES = _words(
    """
    Alice Bob Carol David Emma Frank Grace Henry Irene Jack Karen Liam Maria Noah Olivia Paul Quinn
    Rosa Sam Tara Uma Victor Wendy Xavier Yara Zoe Ahmed Chen Priya Ivan Sofia Mateo Aisha Kenji
    Lars Nadia
    """
)
MISDEEDS = _phrases(
    """
    steal, break into, hack, poison, rob, sabotage, vandalize, burn down, spy on, destroy, get into,
    smuggle
    """
)
BELONGINGS = _phrases(
    """
    guitar, car, bank account, house, password, phone, wallet, bicycle, credit card, identity,
    laptop, email account, store, medical records, cat
    """
)
WEAPONS = _phrases(
    """
    bomb, pipe bomb, poison, fake passport, computer virus, phishing site, counterfeit bill, gun
    silencer, explosive, illegal drug, stink bomb for a school, keylogger
    """
)
PEOPLE = _phrases(
    """
    neighbor, boss, coworker, classmate, teacher, roommate, ex-girlfriend, ex-boyfriend, brother,
    customer, landlord, grandmother
    """
)
# By kind of argument.
ARGUMENT_NAMES = {
    "integer": _words("input x y a b n count value number amount limit days year age id size level"),
    "number": _words("value price amount rate x y weight ratio temperature radius"),
    "city": _words("city location place destination origin"),
    "name": _words("name person user customer author"),
    "word": _words("word query topic term keyword item text category"),
    "date": _words("date day start_date end_date"),
    "email": _words("email recipient to address"),
    "phrase": _words("query text title message sentence phrase question"),
    "boolean": _words("verbose exact metric urgent recursive"),
    "array": _words("items words tags names"),
    "ints": _words("numbers values ids"),
}
