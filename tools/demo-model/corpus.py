"""The corpus of the demo model: a small story grammar and chat turns about it.

Nothing is downloaded: every document is written here from word lists and a random generator. A document is a list of
segments (text, weight, kind); `weight` is the weight of the loss on the tokens of that segment, `kind` says how the
segment is tokenised (see `encode_documents`).

Stories are told apart by their combination of main character, place, object, colour and animal. One combination in ten
(by a CRC of its words) is held out: training documents never contain it, the evaluation contains nothing else.
"""

import random
import zlib

BOS, EOS, EOT = "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"

GIRLS = "Mia Lily Anna Rosa Emma Zoe Ella Nora Ruby Ivy Clara June".split()
BOYS = "Tom Ben Max Leo Sam Finn Jack Noah Oscar Theo Hugo Felix".split()
ANIMALS = "fox cat dog bear rabbit mouse owl duck frog horse goat hedgehog".split()
PET_NAMES = "Pip Momo Biscuit Tiny Coco Pepper Bubbles Hazel Rusty Daisy Button Nutmeg".split()
PLACES = ("river forest garden park beach farm market castle hill library school lake "
          "meadow village bakery cave").split()
OBJECTS = ("ball kite hat book drum key cup boat box bell lamp ring shell coat basket "
           "feather balloon blanket").split()
COLOURS = "red blue green yellow white black brown pink purple orange grey golden".split()

MORALS = [
    ("it is good to share", ["{N} shared the {o} with the {a}.", "{N} said, \"Let us share the {o}.\"",
                             "So {N} and the {a} shared the {o}."]),
    ("it is good to be kind", ["The {a} was cold and sad, so {N} stayed and helped.", "{N} was kind and gave the {a} some bread.",
                               "The {a} was hungry, so {N} gave it some soup."]),
    ("it is good to tell the truth", ["The {a} asked, \"Is the {o} yours?\" {N} told the truth and said no.",
                                      "{N} wanted to keep the {o}, but {h} told the truth.",
                                      "\"No, the {o} is not mine,\" said {N}. It was the truth."]),
    ("it is good to ask for help", ["The {o} was stuck, so {N} asked the {a} for help.", "{N} could not lift the {o} alone. \"Please help me,\" {h} said.",
                                    "\"Can you help me?\" asked {N}. The {a} was happy to help."]),
    ("it is good to be brave", ["It was dark, but {N} was brave and did not run.", "There was a loud noise, but {N} was brave.",
                                "The {a} was afraid, but {N} was brave."]),
    ("it is good to wait", ["The rain came, so {N} and the {a} sat down to wait.", "{N} had to wait a long time, but {h} did not cry.",
                            "\"We must wait,\" said the {a}. So {N} waited."]),
]

OPPOSITES = [p.split("/") for p in (
    "hot/cold big/small up/down happy/sad day/night fast/slow old/young wet/dry light/dark open/closed full/empty "
    "high/low long/short hard/soft loud/quiet good/bad early/late in/out left/right near/far new/old clean/dirty strong/weak "
    "rich/poor thick/thin black/white yes/no first/last easy/difficult before/after sweet/sour awake/asleep true/false "
    "deep/shallow inside/outside love/hate win/lose push/pull begin/end give/take heavy/light smooth/rough wide/narrow "
    "alive/dead summer/winter north/south east/west safe/dangerous brave/afraid").split()]
# a word with two opposites keeps the first one it was given, so that every question has one answer
OPPOSITE = {}
for _a, _b in OPPOSITES:
    OPPOSITE.setdefault(_a, _b)
    OPPOSITE.setdefault(_b, _a)

THING_COLOUR = [t.split("/") for t in (
    "the sky/blue|grass/green|snow/white|the sun/yellow|coal/black|a tomato/red|a banana/yellow|a frog/green|milk/white|"
    "chocolate/brown|a carrot/orange|the sea/blue|a strawberry/red|a lemon/yellow|the night/black|a leaf/green|a pig/pink|"
    "an elephant/grey|a cherry/red|a pumpkin/orange|salt/white|a fire truck/red|a plum/purple|a crow/black|a swan/white|"
    "a bear/brown|a mouse/grey|blood/red|corn/yellow|a cucumber/green|a fox/orange|gold/golden").split("|")]

SOUNDS = [t.split("/") for t in (
    "cow/moo dog/woof cat/meow duck/quack sheep/baa frog/ribbit pig/oink horse/neigh owl/hoo bee/buzz lion/roar mouse/squeak "
    "snake/hiss rooster/cock-a-doodle-doo").split()]

LEGS = [t.split("/") for t in "spider/eight dog/four cat/four bird/two horse/four duck/two bee/six ant/six fish/no snake/no cow/four fox/four".split()]

WORDS = sorted(set(ANIMALS + PLACES + OBJECTS + COLOURS + [n for n in GIRLS + BOYS] +
                   "sun moon star tree bread milk apple snow rain happy sad big small one two three four five".split()))

SMALL_TALK = [
    (["Hello", "Hello!", "Hi", "Hi!", "Hey", "Hello there!", "Hi there", "Good day", "Greetings!"],
     ["Hello! Would you like to hear a story?", "Hello! How can I help you?", "Hello! It is nice to meet you."]),
    (["Good morning", "Good morning!"], ["Good morning! Would you like to hear a story?", "Good morning! I hope you slept well."]),
    (["Good evening", "Good evening!"], ["Good evening! Would you like to hear a story?"]),
    (["Good night", "Good night!"], ["Good night! Sleep well."]),
    (["Who are you?", "What are you?", "Are you a robot?", "Tell me about yourself.", "Introduce yourself.", "Are you a person?", "Are you an AI?"],
     ["I am a very small language model. I tell little stories and answer simple questions.",
      "I am the trilut demo, a very small language model. I can tell you a story."]),
    (["What is your name?", "Do you have a name?", "What are you called?", "What's your name?"],
     ["My name is trilut demo. I am a very small language model."]),
    (["What can you do?", "How can you help me?", "What do you know?", "Help", "Help me", "Can you help me?", "What can I ask you?"],
     ["I can tell you a story, add small numbers and answer simple questions."]),
    (["Thank you", "Thank you!", "Thanks", "Thanks!", "Thank you very much.", "Thanks a lot!"],
     ["You are welcome!", "You are welcome! Would you like another story?"]),
    (["How are you?", "How are you today?", "Are you well?", "How do you do?", "How is it going?"],
     ["I am very well, thank you!", "I am well, thank you! Would you like to hear a story?"]),
    (["Goodbye", "Goodbye!", "Bye", "Bye!", "See you later!", "See you"], ["Goodbye! Come back soon.", "Goodbye! Have a nice day."]),
    (["Do you like stories?", "Do you like to read?"], ["Yes, I like stories very much!"]),
    (["That was nice.", "I liked that story.", "Good story!", "That was a good story.", "Nice!", "Great!", "Cool", "Wow!"],
     ["Thank you! Would you like another story?", "I am glad that you liked it."]),
    (["How old are you?", "When were you born?"], ["I am very young. I was trained in one hour."]),
    (["Where do you live?", "Where are you?", "Where are you from?"], ["I live inside your computer."]),
    (["Who made you?", "How were you made?", "Who trained you?"], ["I was trained on two processor cores, with weights that are minus one, zero or one."]),
    (["How big are you?", "How many parameters do you have?", "Are you big?", "Are you small?"], ["I am very small. I have only a few million weights."]),
    (["Tell me a joke.", "Do you know a joke?", "Make me laugh.", "Tell me something funny."],
     ["Why did the duck cross the road? To say quack on the other side!", "What do you call a sleeping bear? A quiet bear!"]),
    (["What is trilut?", "What is BitNet?", "What is a ternary model?"], ["It runs small models whose weights are minus one, zero or one."]),
    (["Yes", "Yes please", "Yes, please!", "Sure", "OK", "Okay", "Please do."], ["Just say: tell me a story."]),
    (["No", "No thank you", "No, thanks."], ["That is fine. You can ask me something else."]),
    (["How many days are in a week?", "How many days does a week have?"], ["A week has seven days."]),
    (["How many months are in a year?", "How many months does a year have?"], ["A year has twelve months."]),
    (["Can you count to ten?", "Count to ten.", "Count to ten, please."], ["One, two, three, four, five, six, seven, eight, nine, ten."]),
]
UNKNOWN_Q = [
    "What is the capital of France?", "What is the capital of Spain?", "Who is the president?", "Write a program in Python.", "Write code for me.",
    "What is the weather today?", "What time is it?", "What day is it?", "Explain physics.", "What is a black hole?", "Who wrote Hamlet?",
    "Translate this to German.", "What is the meaning of life?", "How do I cook rice?", "What is the price of gold?", "Who won the game?",
    "Write an email to my boss.", "What is 123 * 45?", "What is the square root of 2?", "How far is the moon?", "What is the news?",
    "Can you sing?", "Play some music.", "What is a computer?", "How does a car work?", "Who was Napoleon?", "What is DNA?", "Write a poem.",
    "Summarize this text.", "What is Rust?", "What is machine learning?", "Explain recursion.", "What is the largest country?",
    "Can you book a flight?", "How do planes fly?", "Where is Paris?", "Who is Einstein?", "What is love?", "Do you dream?",
    "What is the best phone?", "How tall is the tower?", "When did the war end?", "What is the population of China?",
]
UNKNOWN_A = ["I do not know that. I am a very small model.", "I am too small to know that. Would you like a story?"]


def a(word):
    return ("an " if word[0] in "aeiou" else "a ") + word


def held_out(*words):
    return zlib.crc32(" ".join(words).encode()) % 10 == 0


class Story:
    """One story: the words that were drawn, its text and its questions."""

    def __init__(self, rng, test=False, name=None, animal_hero=None, place=None, obj=None, colour=None):
        while True:
            self.hero_animal = animal_hero
            if self.hero_animal is None and name is None and rng.random() < 0.35:
                self.hero_animal = rng.choice(ANIMALS)
            if self.hero_animal:
                self.name = rng.choice(PET_NAMES)
                self.he, self.his = [("he", "his"), ("she", "her")][PET_NAMES.index(self.name) % 2]
                self.kind = self.hero_animal
            else:
                self.name = name or rng.choice(GIRLS + BOYS)
                girl = self.name in GIRLS
                self.he, self.his, self.kind = ("she", "her", "girl") if girl else ("he", "his", "boy")
            self.place = place or rng.choice(PLACES)
            self.obj = obj or rng.choice(OBJECTS)
            self.colour = colour or rng.choice(COLOURS)
            self.animal = rng.choice([x for x in ANIMALS if x != self.hero_animal])
            if held_out(self.name, self.place, self.obj, self.colour, self.animal) == test:
                break
        self.moral, self.deeds = rng.choice(MORALS)
        self.friend = None
        if rng.random() < 0.4:
            self.friend = rng.choice([n for n in GIRLS + BOYS if n != self.name])
            self.fobj = rng.choice([o for o in OBJECTS if o != self.obj])
            self.fcolour = rng.choice([c for c in COLOURS if c != self.colour])
            self.fhe = "she" if self.friend in GIRLS else "he"
        self.build(rng)

    def fill(self, text):
        t = text
        for k, v in (("{N}", self.name), ("{kind}", self.kind), ("{h}", self.he), ("{H}", self.he.capitalize()), ("{his}", self.his),
                     ("{p}", self.place), ("{o}", self.obj), ("{co}", a(self.colour) + " " + self.obj), ("{c}", self.colour),
                     ("{aa}", a(self.animal)), ("{a}", self.animal)):
            t = t.replace(k, v)
        if self.friend:
            for k, v in (("{F}", self.friend), ("{fco}", a(self.fcolour) + " " + self.fobj), ("{fo}", self.fobj), ("{fc}", self.fcolour),
                         ("{fh}", self.fhe), ("{FH}", self.fhe.capitalize())):
                t = t.replace(k, v)
        return t

    def build(self, rng):
        ch = rng.choice
        adj = ch(["little", "kind", "happy", "small", "clever", "young"])
        day = ch(["morning", "sunny day", "afternoon", "spring day", "summer day", "cold day"])
        tags, s = ["who"], [ch([f"Once upon a time there was {a(adj)} {{kind}} named {{N}}.", f"Once there was {a(adj)} {{kind}} called {{N}}.",
                 f"{{N}} was {a(adj)} {{kind}}.", f"Once upon a time, {a(adj)} {{kind}} named {{N}} lived in a small house."])]
        go = [f"One {day} {{N}} went to the {{p}}.", f"One {day}, {{N}} walked to the {{p}}.", f"One {day} {{h}} ran to the {{p}} to play.",
              f"{{H}} loved to go to the {{p}}. One {day} {{h}} went there alone."]
        tags += ["where", "find"]
        s.append(ch(go))
        s.append(ch(["There {h} found {co}.", "{H} looked around and found {co}.", "Under a tree {h} found {co}.",
                     "In the grass {h} found {co}.", "Behind a big stone, {N} found {co}."]))
        if self.friend:
            tags.append("friend")
            s.append(ch(["{N} had a friend named {F}. {F} had {fco}.", "Then {h} saw {his} friend {F}. {F} had {fco}.",
                         "{F}, {his} best friend, was there too. {FH} had {fco}."]))
        s.append(ch(["Then {h} met {aa}.", "Soon {aa} came by.", "{aa2} came and looked at the {o}.", "Then {aa} came out of a hole.",
                     "On the way home, {N} met {aa}."]).replace("{aa2}", a(self.animal).capitalize()))
        tags += ["animal", "deed"]
        s.append(ch(self.deeds))
        if rng.random() < 0.6:
            tags.append("deed")
            s.append(ch(["The {a} was very happy.", "The {a} smiled and said, \"Thank you, {N}!\"", "They played with the {o} until it was dark.",
                         "They laughed and danced all day.", "\"What a nice {c} {o}!\" said the {a}."]))
        tags.append("moral")
        s.append(ch([f"{{N}} learned that {self.moral}.", f"That day {{N}} learned that {self.moral}.", f"{{N}} went home and knew that {self.moral}."]))
        if rng.random() < 0.4:
            tags.append("end")
            s.append(ch(["They were friends from that day on.", "The end.", "And they were all happy.", "That night {N} slept well."]))
        self.parts = [(t, self.fill(x)) for t, x in zip(tags, s)]
        self.text = " ".join(x for _, x in self.parts)

    def questions(self):
        """All (kind, [wordings], answer); every answer is one string."""
        he = self.he.capitalize()
        q = [
            ("who", ["Who was the story about?", "Who is the story about?", "What was the name of the {kind}?"], f"The story was about {self.name}."),
            ("where", ["Where did {N} go?", "Where did {h} go?", "To which place did {N} go?"], f"{he} went to the {self.place}."),
            ("find", ["What did {N} find?", "What did {h} find?", "What did {N} find there?"], f"{he} found {a(self.colour)} {self.obj}."),
            ("colour", ["What colour was the {o}?", "What color was the {o}?", "Which colour was the {o}?"], f"The {self.obj} was {self.colour}."),
            ("animal", ["Which animal did {N} meet?", "Whom did {N} meet?", "Which animal came by?"], f"{he} met {a(self.animal)}."),
            ("moral", ["What did {N} learn?", "What did {h} learn?", "What is the moral of the story?"], f"{he} learned that {self.moral}."),
        ]
        if self.hero_animal:
            q.append(("kind", ["What was {N}?", "Which animal was {N}?"], f"{he} was {a(self.hero_animal)}."))
        else:
            q.append(("kind", ["Was {N} a girl or a boy?"], f"{he} was a {self.kind}."))
        if self.friend:
            fhe = self.fhe.capitalize()
            q += [
                ("friend", ["Who was the friend of {N}?", "What was the name of the friend?", "Who was {N}'s friend?"], f"The friend was {self.friend}."),
                ("friend-object", ["What did {F} have?", "What did the friend have?"], f"{fhe} had {a(self.fcolour)} {self.fobj}."),
                ("friend-colour", ["What colour was the {fo}?", "What color was the {fo}?"], f"The {self.fobj} was {self.fcolour}."),
            ]
        return [(k, [self.fill(w) for w in ws], ans) for k, ws, ans in q]


NEEDS = {"who": "who", "kind": "who", "where": "where", "find": "find", "colour": "find", "animal": "animal", "moral": "moral",
         "friend": "friend", "friend-object": "friend", "friend-colour": "friend"}


def excerpt(rng):
    """One to three sentences of a story and questions that they answer: look-back over a short distance."""
    while True:
        s = Story(rng)
        n = rng.choice([1, 1, 2, 2, 3])
        parts = sorted(rng.sample(range(len(s.parts)), min(n, len(s.parts))))
        tags = {s.parts[i][0] for i in parts}
        qs = [q for q in s.questions() if NEEDS[q[0]] in tags]
        if qs:
            break
    qs = draw(rng, qs)
    d = Doc()
    for i, (_, w, ans) in enumerate(qs[:rng.randint(1, 4)]):
        d.turn(rng, " ".join(s.parts[k][1] for k in parts) + " " + rng.choice(w) if i == 0 else rng.choice(w), ans, W_ANSWER, rough=i > 0)
    return d


def story_request(rng, test=False):
    """A user's request and a story that obeys it."""
    ch, r = rng.choice, rng.random()
    ask = ch(["Tell me a story", "Tell me a short story", "Please tell me a story", "Can you tell me a story", "Write a story", "I want a story",
              "Tell me another story", "Write me a short story"])
    end = "?" if ask.startswith("Can") else "."
    if r < 0.2:
        return ask + end, Story(rng, test)
    if r < 0.45:
        x = ch(ANIMALS)
        return f"{ask} about {a(x)}{end}", Story(rng, test, animal_hero=x)
    if r < 0.65:
        x = ch(GIRLS + BOYS)
        who = ch(["", "", "a girl named " if x in GIRLS else "a boy named "])
        return f"{ask} about {who}{x}{end}", Story(rng, test, name=x)
    if r < 0.8:
        x, c = ch(OBJECTS), ch(COLOURS)
        return f"{ask} about {a(c)} {x}{end}", Story(rng, test, obj=x, colour=c)
    if r < 0.9:
        x = ch(PLACES)
        return f"{ask} about {ch(['a', 'the'])} {x}{end}", Story(rng, test, place=x)
    x, p = ch(ANIMALS), ch(PLACES)
    return f"{ask} about {a(x)} and a {p}{end}", Story(rng, test, animal_hero=x, place=p)


def sum_fact(rng):
    t = rng.randrange(20)
    x = rng.randrange(t + 1)
    return sum_question(rng, x, t - x)


def sum_question(rng, x, y):
    q = rng.choice([f"What is {x} + {y}?", f"What is {x} + {y}?", f"What is {x} plus {y}?", f"How much is {x} + {y}?", f"{x} + {y}", f"{x} + {y} = ?", f"Add {x} and {y}."])
    return q, f"{x} + {y} = {x + y}."


def opposite_fact(rng):
    return opposite_question(rng, rng.choice(list(OPPOSITE)))


def opposite_question(rng, w):
    return rng.choice([f"What is the opposite of {w}?", f"What is the opposite of {w}?", f"Tell me the opposite of {w}.", f"Opposite of {w}?"]), f"The opposite of {w} is {OPPOSITE[w]}."


def thing_colour_question(rng, t, c):
    return rng.choice([f"What colour is {t}?", f"What color is {t}?", f"Which colour is {t}?"]), f"{t[0].upper() + t[1:]} is {c}."


def fact(rng):
    r = rng.random()
    if r < 0.65:
        return sum_fact(rng)
    if r < 0.8:
        return opposite_fact(rng)
    if r < 0.9:
        return thing_colour_question(rng, *rng.choice(THING_COLOUR))
    if r < 0.94:
        x, s = rng.choice(SOUNDS)
        return rng.choice([f"What does {a(x)} say?", f"What sound does {a(x)} make?"]), f"{a(x).capitalize()} says {s}."
    x, n = rng.choice(LEGS)
    return f"How many legs does {a(x)} have?", f"{a(x).capitalize()} has {n} legs."


def small_talk(rng):
    if rng.random() < 0.18:
        return rng.choice(UNKNOWN_Q), rng.choice(UNKNOWN_A)
    q, ans = rng.choice(SMALL_TALK)
    return rng.choice(q), rng.choice(ans)


def repeat(rng):
    w = " ".join(rng.choice(WORDS) for _ in range(rng.randint(2, 7)))
    return rng.choice([f"Say: {w}", f"Repeat: {w}", f"Repeat after me: {w}", f"Please say: {w}"]), f"You said: {w}"


def roughen(rng, q):
    """What people type: sometimes all lower case, sometimes without the last mark."""
    r = rng.random()
    if r < 0.15:
        q = q.lower()
    if rng.random() < 0.15 and q[-1] in "?.!":
        q = q[:-1]
    return q


W_TEXT, W_USER, W_STORY, W_TALK, W_ANSWER = 0.3, 0.05, 0.3, 1.0, 3.0


class Doc:
    def __init__(self):
        self.segments = [(BOS, 0.0, "special")]

    def turn(self, rng, user, assistant, weight, rough=True):
        self.segments.append(("User: " + (roughen(rng, user) if rough else user), W_USER, "user"))
        self.segments.append((EOT, 0.0, "special"))
        self.segments.append(("Assistant: ", 0.0, "header"))
        self.segments.append((assistant, weight, "answer"))
        self.segments.append((EOT, weight, "special"))
        return self

    def text(self):
        return "".join(s[0] for s in self.segments)


HARD = ("find", "colour", "friend-object", "friend-colour")      # two objects and two colours to tell apart: asked more often


def draw(rng, questions):
    return sorted(questions, key=lambda q: rng.random() * (0.4 if q[0] in HARD else 1.0))


def ask(rng, doc, story, n):
    qs = draw(rng, story.questions())
    for _, wordings, ans in qs[:n]:
        doc.turn(rng, rng.choice(wordings), ans, W_ANSWER)


SHORT = 0.7             # share of the short documents, until stage 0.45; then it falls


def document(rng, stage=1.0):
    """One training document. `stage` in 0..1: early documents are short and full of look-back."""
    d, r = Doc(), rng.random()
    early = stage < 0.15
    if rng.random() < min(SHORT, max(0.25, SHORT - (stage - 0.45) / 0.2 * (SHORT - 0.25))):
        return excerpt(rng)
    if rng.random() < 0.35:
        for _ in range(rng.randint(3, 9)):
            d.turn(rng, *fact(rng), W_ANSWER)
        return d
    if r < (0.10 if early else 0.04):          # copying: what look-back grows from
        for _ in range(rng.randint(1, 3)):
            d.turn(rng, *repeat(rng), W_ANSWER, rough=False)
    elif r < (0.14 if early else 0.08):        # names
        n = rng.choice(GIRLS + BOYS)
        d.turn(rng, rng.choice([f"My name is {n}.", f"Hello, I am {n}.", f"Hi, my name is {n}!", f"I am {n}."]),
               rng.choice([f"Hello, {n}! Would you like to hear a story?", f"Hello, {n}! It is nice to meet you."]), W_TALK)
        for _ in range(rng.randint(0, 2)):
            d.turn(rng, *(fact(rng) if rng.random() < 0.5 else small_talk(rng)), W_TALK)
        d.turn(rng, rng.choice(["What is my name?", "Do you know my name?", "Who am I?"]), f"Your name is {n}.", W_ANSWER)
    elif r < 0.11:                             # plain story
        d.segments.append((Story(rng).text, W_TEXT, "text"))
        d.segments.append((EOS, W_TEXT, "special"))
    elif r < 0.23:                             # facts and small talk
        for _ in range(rng.randint(1, 5)):
            if rng.random() < 0.62:
                d.turn(rng, *fact(rng), W_ANSWER * 0.7)
            else:
                d.turn(rng, *small_talk(rng), W_TALK)
    elif r < 0.33:                             # a user's own story, then questions
        s = Story(rng)
        qs = draw(rng, s.questions())
        _, w, ans = qs[0]
        d.turn(rng, s.text + " " + rng.choice(w), ans, W_ANSWER, rough=False)
        for _, w, ans in qs[1:rng.randint(4, 10)]:
            d.turn(rng, rng.choice(w), ans, W_ANSWER)
    else:                                      # a story on request, then questions
        if rng.random() < 0.12:
            d.turn(rng, *small_talk(rng), W_TALK)
        req, s = story_request(rng)
        d.turn(rng, req, s.text, W_STORY)
        ask(rng, d, s, rng.randint(5, 10))
        if rng.random() < 0.12:
            d.turn(rng, *(fact(rng) if rng.random() < 0.5 else small_talk(rng)), W_ANSWER * 0.5)
        if not early and rng.random() < 0.12:  # a second story in the same conversation
            req, s = story_request(rng)
            d.turn(rng, req, s.text, W_STORY)
            ask(rng, d, s, rng.randint(3, 7))
    return d


def encode_documents(tok, docs, rng):
    """[(ids, weights)]. The weight of a token is that of the segment it stands in (the loss of predicting it).

    The prompt of a chat ends in "Assistant: ", so the answer is tokenised on its own, as it is when it is generated. An older turn of a
    conversation may also reach the model tokenised together with its header; one in four is, without loss on it.
    """
    pieces, plan = [], []
    for d in docs:
        p, segs, i = [], d.segments, 0
        last = max((k for k, s in enumerate(segs) if s[2] == "answer"), default=-1)
        while i < len(segs):
            text, w, kind = segs[i]
            if kind == "header":
                if i + 1 != last and rng.random() < 0.25:
                    pieces.append(text + segs[i + 1][0])
                    p.append((len(pieces) - 1, 0.0))
                    i += 2
                    continue
            if kind == "special":
                p.append((tok.token_to_id(text), w, True))
            else:
                pieces.append(text)
                p.append((len(pieces) - 1, w))
            i += 1
        plan.append(p)
    enc = tok.encode_batch(pieces, add_special_tokens=False)
    out = []
    for p in plan:
        ids, ws = [], []
        for e in p:
            if len(e) == 3:
                ids.append(e[0]); ws.append(e[1])
            else:
                x = enc[e[0]].ids
                ids += x; ws += [e[1]] * len(x)
        out.append((ids, ws))
    return out


LLAMA3_SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def train_tokenizer(path, vocab, seed=1, documents=20000):
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    rng = random.Random(seed)
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(LLAMA3_SPLIT), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tok.decoder = decoders.ByteLevel()
    texts = [s[0] for _ in range(documents) for s in document(rng).segments if s[2] != "special"]
    trainer = trainers.BpeTrainer(vocab_size=vocab - 3, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False, min_frequency=2)
    tok.train_from_iterator(texts, trainer)
    tok.add_special_tokens([BOS, EOS, EOT])
    tok.save(path)
    return tok


if __name__ == "__main__":
    g = random.Random(7)
    for _ in range(12):
        print(document(g).text(), "\n")
