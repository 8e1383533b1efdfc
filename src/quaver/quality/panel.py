"""The texts that every comparison reads.

Sixty plain sentences, chosen by measurement out of 122 candidates: three voices of `flite` read
them, and those that the small recogniser of `metrics.wer` plainly could not follow were dropped, so
that an error points at the voice and not at the judge. About half still had an error by one voice;
the word error rate of the voices on all sixty is 3.7 % (slt), 1.2 % (rms) and 4.6 % (awb).
Training texts never contain them.

Models that know sounds besides words read a few more, one for each sound.
"""

from __future__ import annotations

PLAIN_SENTENCES: tuple[str, ...] = (
    "My brother is looking for a new job in the city.",
    "Please close the window before you leave the house.",
    "She wrote a long letter to her parents last week.",
    "The meeting was moved to the other side of the building.",
    "He forgot his keys on the kitchen table again.",
    "The doctor told him to drink more water every day.",
    "The train was late because of the heavy snow.",
    "Our neighbors have a very friendly black dog.",
    "You can find the answer on the last page of the book.",
    "There was nothing interesting on television last night.",
    "We had a wonderful dinner at the restaurant by the water.",
    "The government announced a new plan for public housing.",
    "I can't remember where I put my glasses.",
    "Many people enjoy listening to music while they work.",
    "The airplane landed safely in spite of the strong wind.",
    "My sister wants to become a lawyer after college.",
    "The old man sat quietly on a bench in the park.",
    "We need to buy bread and butter on the way home.",
    "This is the best advice that anyone has ever given me.",
    "The team won the game in the final minute.",
    "I have never seen so many stars in the sky.",
    "Don't forget to call your mother on her birthday.",
    "He was surprised to find the front door open.",
    "Scientists say that the weather is becoming less predictable.",
    "Most of the students passed the final exam.",
    "We waited for an hour but nobody came.",
    "She smiled at me and said that everything was fine.",
    "There are several good reasons to stay at home tonight.",
    "He reads the newspaper every morning before work.",
    "The museum is closed for repairs until the end of summer.",
    "I think we took the wrong road at the last turn.",
    "The farmer sold his land and moved to another state.",
    "Would you prefer to sit inside or outside?",
    "The bank sent me a letter about my account.",
    "They have been married for almost twenty years.",
    "It is important to read the instructions carefully.",
    "The winter here is long and very cold.",
    "The kitchen smells like fresh bread and coffee.",
    "The new bridge will be finished next spring.",
    "The lady at the front desk gave us a map of the city.",
    "My father used to work for the railroad.",
    "They could hear the sound of music coming from the house.",
    "She bought a beautiful green dress for the party.",
    "I had to wait a long time at the post office.",
    "We are going to visit our relatives in the country.",
    "The story begins in a small village near the sea.",
    "The children were excited about their first trip to the zoo.",
    "Do you know how to get to the nearest hospital?",
    "The president will speak to the nation this evening.",
    "A good night of sleep can change the way you feel.",
    "She always takes the dog for a walk after lunch.",
    "This road leads straight to the old church.",
    "The phone rang several times but nobody answered it.",
    "We need a bigger table for the dining room.",
    "The driver stopped the truck at the side of the road.",
    "I hope that you will feel better very soon.",
    "The answer to your question depends on many things.",
    "The garden looks lovely in the early summer.",
    "The students are not happy about the new rules.",
    "The market is full of people on Saturday morning.",
)
"""Everyday sentences of 6 to 14 words: no digits, no names."""

TAGGED_SENTENCES: tuple[str, ...] = (
    "You should have seen his face <laugh> when the lights went out.",
    "I told you so <chuckle> but you would not listen.",
    "It has been a very long day <sigh> and it is not over yet.",
    "Excuse me <cough> I have had this cold for a week.",
    "I miss the old house <sniffle> more than I can say.",
    "Not another meeting <groan> we had three of them today.",
    "I should go to bed <yawn> before I fall asleep here.",
    "Look behind you <gasp> there is somebody at the window.",
)
"""One for each emotion tag of the released Orpheus models."""
