"""The weekly carbon dioxide record of Mauna Loa, which statsmodels ships."""

import pandas as pd


def load_co2(missing="drop"):
    """Weekly atmospheric CO₂ at the Mauna Loa Observatory, Hawaii, March 1958 to December 2001.

    A trend and a yearly season; 59 of 2284 weeks were not measured, the longest stretch in 1964.

    Parameters
    ----------
    missing : {"drop", "nan"}, default="drop"
        Whether the missing weeks are left out, or stand there as NaN.

    Returns
    -------
    DataFrame of shape (2225, 1), or (2284, 1) with ``missing="nan"``
        Column "co2" in parts per million by volume; the index is the Saturday that ends the week.

    Raises
    ------
    ImportError
        If statsmodels is not installed.
    ValueError
        If ``missing`` is another word.

    References
    ----------
    C. D. Keeling and T. P. Whorf, "Atmospheric CO2 records from sites in the SIO air sampling network", in Trends: A
    Compendium of Data on Global Change, Carbon Dioxide Information Analysis Center, 2004. In the public domain, as
    statsmodels states.

    Examples
    --------
    >>> from statespace.datasets import load_co2
    >>> load_co2().head(3)
                  co2
    time
    1958-03-29  316.1
    1958-04-05  317.3
    1958-04-12  317.6
    """
    if missing not in ("drop", "nan"):
        raise ValueError(f"`missing` must be 'drop' or 'nan'. Got {missing!r}.")
    try:
        from statsmodels.datasets import co2
    except ImportError:
        raise ImportError(
            "load_co2 reads the record that statsmodels ships, and statsmodels is not installed: "
            "pip install 'statespace-learn[data]'"
        ) from None
    record = pd.DataFrame({"co2": co2.load_pandas().data["co2"].astype(float)})
    record.index = pd.DatetimeIndex(record.index, name="time", freq=None)
    return record.dropna() if missing == "drop" else record
